"""A simulated year of nights: what ledger and prediction store cost, and that the cost stays bounded.

Prepare, ingest, commit and retention are those of the package. The store is in memory and counts requests, the clock is
set, and service and index are stubs (`benchmarks/night_service.py`).
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from benchmarks import night_source
from benchmarks.night_ours import DAY_S, FIRST_S, SOURCE, Nights
from benchmarks.report import Case, Outcome
from opensearch_batch.core.ledger.head import Head, ScopeHead
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.resolve import Mode
from tests.core.counted_objects import CountedObjects

NAME = "housekeeping"
RECORDS, QUICK_RECORDS, OBJECTS = 10_000, 1_000, 20
CHANGED, NEW, REMOVED = 0.01, 0.002, 0.001
NIGHTS, QUICK_NIGHTS, QUARTERS = 365, 60, 4
# Requests are averaged over so many nights.
AVERAGED = 28
# What the last quarter may have more than the half year before, when retention had begun to delete.
GROWTH = 1.25
MB = 1_000_000


class Quarter(msgspec.Struct, frozen=True):
    """The state after some nights; the requests of a night by kind are averages, `head_bytes` those of the heads."""

    night: int
    documents: int
    paid: int
    answers: int
    segments: int
    store: tuple[int, int]
    ledger: tuple[int, int]
    runs: tuple[int, int]
    head_bytes: int
    requests: dict[str, float]

    @property
    def requests_a_night(self) -> float:
        """The sum over all kinds."""
        return sum(self.requests.values())


class Year:
    """A pipeline and its source."""

    def __init__(self, records: int, mode: Mode) -> None:
        self.now = FIRST_S
        self.objects = CountedObjects(lambda: self.now)
        self.nights = Nights(self.objects, clock=lambda: self.now, mode=mode)
        self.chance = random.Random(7)  # noqa: S311 - test data
        self.records = records
        self.next = self.edits = 0
        self._paid = 0

    def night(self, number: int) -> None:
        """Implement in a subclass: change the source, and run once or several times."""
        raise NotImplementedError

    def write(self, name: str, lines: Sequence[bytes]) -> None:
        """Write an object of the source."""
        self.objects.put_source(f"{SOURCE}{name}", b"".join(line + b"\n" for line in lines))

    def new(self, count: int) -> list[bytes]:
        """Return records that there have not been."""
        self.next += count
        return [night_source.record(number) for number in range(self.next - count, self.next)]

    def edited(self, line: bytes) -> bytes:
        """Return a record with a text that it has not had."""
        self.edits += 1
        return line.replace(b'","metadata"', b' %d","metadata"' % self.chance.getrandbits(60))

    def run(self, source: str = SOURCE) -> None:
        """Run once."""
        self.now += 60
        self._paid += self.nights.run(self.now, source=source)["paid"]

    def quarter(self, night: int, requests: Sequence[Counter[str]]) -> Quarter:
        """Return the state of the pipeline, with the average of the requests of the last nights."""
        layout, before = self.nights.layout, self.objects.requests.copy()
        heads = [item.uri for item in self.objects.list(layout.scopes()) if item.uri.endswith("/head.json")]
        loaded: list[Head] = [ScopeHead(self.objects, uri).load() for uri in heads]
        store = PredictionStore(self.objects, layout.predictions()).head()
        all_files, all_bytes = self.objects.sizes(f"{layout.root}/")
        parts = [self.objects.sizes(folder) for folder in (f"{layout.predictions()}/", layout.scopes())]
        self.objects.requests = before
        return Quarter(
            night,
            sum(head.documents for head in loaded),
            self._paid,
            sum(each.rows for each in store.segments.values()),
            len(store.segments),
            parts[0],
            parts[1],
            (all_files - sum(files for files, _ in parts), all_bytes - sum(size for _, size in parts)),
            sum(self.objects.sizes(uri)[1] for uri in (*heads, f"{layout.predictions()}/head.json")),
            {kind: count / len(requests) for kind, count in sorted(sum(requests, Counter[str]()).items())},
        )


class Snapshot(Year):
    """One prefix, in whose objects records change, come and go."""

    def __init__(self, records: int) -> None:
        super().__init__(records, "snapshot")
        self._objects = [self.new(records // OBJECTS) for _ in range(OBJECTS)]

    def night(self, number: int) -> None:
        """Change the source, and run."""
        if number:
            self._change()
        for at, lines in enumerate(self._objects):
            self.write(f"{at:03d}.jsonl", lines)
        self.run()

    def _change(self) -> None:
        for count, change in ((CHANGED, self._edit), (NEW, self._add), (REMOVED, self._remove)):
            for _ in range(int(self.records * count)):
                change(self.chance.choice(self._objects))

    def _edit(self, lines: list[bytes]) -> None:
        at = self.chance.randrange(len(lines))
        lines[at] = self.edited(lines[at])

    def _add(self, lines: list[bytes]) -> None:
        lines += self.new(1)

    def _remove(self, lines: list[bytes]) -> None:
        lines.pop(self.chance.randrange(len(lines)))


class Additions(Year):
    """A prefix to which an object with new records is added each night."""

    def __init__(self, records: int) -> None:
        super().__init__(records, "snapshot")

    def night(self, number: int) -> None:
        """Add an object, and run."""
        self.write(f"{number:03d}.jsonl", self.new(int(self.records * (CHANGED + NEW))))
        self.run()


class Partitions(Year):
    """A partition a night, and late changes in one of the partitions of the last month."""

    def __init__(self, records: int) -> None:
        super().__init__(records, "append")
        self._partitions: list[list[bytes]] = []

    def night(self, number: int) -> None:
        """Run the new partition, and one that changed."""
        self._partitions.append(self.new(int(self.records * (CHANGED + NEW))))
        self._write_and_run(number)
        if number:
            late = self.chance.randrange(max(number - 30, 0), number)
            self._partitions[late][0] = self.edited(self._partitions[late][0])
            self._write_and_run(late)

    def _write_and_run(self, number: int) -> None:
        self.write(f"dt={number:03d}/a.jsonl", self._partitions[number])
        self.run(f"{SOURCE}dt={number:03d}/")


KINDS: dict[str, Callable[[int], Year]] = {"snapshot": Snapshot, "additions": Additions, "partitions": Partitions}


def run(*, quick: bool = False) -> Outcome:
    """Run the nights of each kind of source."""
    records, nights = (QUICK_RECORDS, QUICK_NIGHTS) if quick else (RECORDS, NIGHTS)
    cases, remarks = list[Case](), [f"{records:,} records of {len(night_source.record(0))} B, 384 floats each"]
    for name, kind in KINDS.items():
        began = time.perf_counter()
        quarters = a_year(kind(records), nights)
        cases += [Case(f"{name}, night {each.night}", "", _cells(each)) for each in quarters]
        cases.append(_bounded(name, quarters))
        remarks.append(f"{name}: {(time.perf_counter() - began) / nights * 1000:.0f} ms a night")
    return Outcome(NAME, cases=cases, remarks=remarks)


def a_year(year: Year, nights: int) -> list[Quarter]:
    """Run so many nights; return the state after each quarter."""
    ends = {round(nights * quarter / QUARTERS) for quarter in range(1, QUARTERS + 1)}
    quarters = list[Quarter]()
    requests = list[Counter[str]]()
    for night in range(nights):
        year.now = FIRST_S + night * DAY_S
        before = year.objects.requests.copy()
        year.night(night)
        requests = [*requests[1 - AVERAGED :], year.objects.requests - before]
        if night + 1 in ends:
            quarters.append(year.quarter(night + 1, requests))
    return quarters


def _cells(each: Quarter) -> str:
    requests = ", ".join(f"{count:.0f} {kind}" for kind, count in each.requests.items())
    folders = "; ".join(
        f"{name} {files:,} objects, {size / MB:.1f} MB"
        for name, (files, size) in (("store", each.store), ("ledger", each.ledger), ("runs and jobs", each.runs))
    )
    return (
        f"{each.documents:,} documents, {each.paid:,} paid, {each.answers:,} answers in {each.segments} segments; "
        f"{folders}; heads {each.head_bytes / 1000:.0f} kB; requests a night: {requests}"
    )


def growth(quarters: Sequence[Quarter]) -> dict[str, float]:
    """Return how much the last quarter has of what the half year had.

    Bytes are counted by document; what is kept for ever is left out.
    """
    half, last = quarters[1], quarters[-1]
    measures: dict[str, Callable[[Quarter], float]] = {
        "store objects": lambda each: each.store[0],
        "store bytes a document": lambda each: each.store[1] / each.documents,
        "ledger bytes a document": lambda each: each.ledger[1] / each.documents,
        "requests a night": lambda each: each.requests_a_night,
    }
    return {what: of(last) / of(half) for what, of in measures.items()}


def _bounded(name: str, quarters: Sequence[Quarter]) -> Case:
    found = growth(quarters)
    measured = ", ".join(f"{what} {ratio:.2f} x" for what, ratio in found.items())
    bar = f"<= {GROWTH} x from night {quarters[1].night} to night {quarters[-1].night}"
    return Case(f"{name}, growth", bar, measured, all(ratio <= GROWTH for ratio in found.values()))
