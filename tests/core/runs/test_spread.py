"""A run that several tasks prepare is the run that one task prepares, whatever the splits are and whoever is lost."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError
from opensearch_batch.core.ledger.head import ClaimLost
from opensearch_batch.core.ledger.rows import RowsReader
from opensearch_batch.core.runs.preparation import Preparation, PreparedRun
from opensearch_batch.core.runs.spread import Spread, SpreadSettings, begin
from opensearch_batch.core.sharding.document_ids import DeletedWhen
from opensearch_batch.core.storage.dead_letters import list_parts, read_letters
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects
from tests.core.runs.nights import SOURCE, Nights, record
from tests.examples import examples

DELETED = DeletedWhen("$.op", "delete")


class Tasks(NamedTuple):
    """How a run is prepared: the size of a split, the tasks that are lost, and those that are done twice.

    `events` happen before the tasks read, stage, and reserve.
    """

    split_bytes: int = 100
    lost: frozenset[int] = frozenset()
    repeated: frozenset[int] = frozenset()
    events: Mapping[str, Callable[[], object]] = MappingProxyType({})

    def prepare(self, nights: Nights, preparation: Preparation) -> PreparedRun | None:
        """Prepare a run."""
        if not begin(nights.objects, nights.layout, preparation, SpreadSettings(split_bytes=self.split_bytes)):
            return preparation.run()

        def spread() -> Spread:
            """Return what a process has that begins now."""
            return Spread(nights.objects, nights.layout, preparation.plan.manifest.run_key, adapter_of)

        steps: list[tuple[str, Callable[[], int], Callable[[int], None]]] = [
            ("read", lambda: len(spread().split()), lambda number: spread().read(number)),
            ("stage", lambda: len(spread().compare()), lambda number: spread().stage(number)),
        ]
        for name, count, do in steps:
            numbers = self._done(count())
            self._happen(f"before {name}")
            for number in numbers:
                do(number)
        self._happen("before reserve")
        return spread().finish()

    def _happen(self, when: str) -> None:
        if when in self.events:
            self.events[when]()

    def _done(self, count: int) -> list[int]:
        """Return the numbers of the tasks that are done, the last ones first."""
        numbers = [number for number in range(count) if number not in self.lost]
        return [*reversed(numbers), *(number for number in numbers if number in self.repeated)]


tasks = st.builds(
    Tasks,
    st.sampled_from([1, 60, 100, 200, 10_000]),
    st.frozensets(st.integers(0, 5), max_size=3),
    st.frozensets(st.integers(0, 5), max_size=2),
)
lines = st.one_of(
    st.builds(
        lambda number, text, more: json.dumps({"id": number, "text": text, **more}).encode(),
        st.integers(0, 12),
        st.sampled_from(["a", "b", "c", "d", "e" * 40]),
        st.sampled_from([{}, {}, {"price": 1}, {"op": "delete"}]),
    ),
    st.sampled_from([b"{oops", b"", b'{"id": "x"}', b'{"text": "no id"}', b"[1]"]),
)
contents = st.lists(lines, max_size=25).flatmap(
    lambda found: st.sampled_from([b"\n", b"\r\n"]).map(lambda end: end.join([*found, b""]))
)
nights_of_history = st.lists(
    st.tuples(
        st.dictionaries(
            st.sampled_from(["a.jsonl", "b.json", "c"]), st.one_of(st.none(), contents, contents), max_size=3
        ),
        tasks,
    ),
    min_size=1,
    max_size=3,
)


def outcome(nights: Nights, prepared: PreparedRun | None) -> Any:
    """Return all of a prepared run that does not depend on who prepared it."""
    if prepared is None:
        return None
    manifest, ledger = prepared.manifest, prepared.ledger
    shards = [msgspec.structs.replace(shard, staged="", more_staged=()) for shard in manifest.shards]
    staged = [[*nights.staged_of(shard)] for shard in manifest.shards]
    entries = {uri: (entry.etag, entry.count, entry.states, entry.modified) for uri, entry in ledger.entries.items()}
    rows = [table.to_pylist() for entry in ledger.entries.values() for table in RowsReader(nights.objects).read(entry)]
    letters = [
        letter
        for part in list_parts(nights.objects, nights.layout.dead_letters(manifest.run_key, "prepare"))
        for letter in read_letters(nights.objects, part)
    ]
    inputs = [nights.objects.read(shard.input) for shard in shards if shard.input]
    return (
        manifest.counts,
        shards,
        staged,
        entries,
        sorted(map(str, rows)),
        (ledger.removed, sorted(ledger.unread), sorted(ledger.waiting)),
        letters,
        manifest.reasons,
        manifest.remarks,
        inputs,
    )


def prepared_both_ways(nights: Nights, how: Tasks, **options: Any) -> tuple[Any, Any, Nights, PreparedRun | None]:
    """Prepare the next run of a pipeline by one task, and of a copy of the pipeline by several."""
    other = copy.deepcopy(nights)
    results: list[Any] = []
    last: PreparedRun | None = None
    for each, is_spread in ((nights, False), (other, True)):
        preparation = each.preparation(**options)
        try:
            last = how.prepare(each, preparation) if is_spread else preparation.run()
        except BatchError as error:
            last = None
            results.append((type(error), str(error)))
        else:
            results.append(outcome(each, last))
    return results[0], results[1], other, last


@pytest.mark.parametrize("service", [pytest.param("openai", marks=pytest.mark.slow), "sagemaker"])
@given(history=nights_of_history, options=st.sampled_from([{}, {"mode": "append"}, {"on_removed": "delete"}]))
@settings(max_examples=examples(80), deadline=None)
def test_a_run_of_several_tasks_equals_that_of_one(service: str, history: list[Any], options: dict[str, Any]) -> None:
    """The same counts, classes, shards, jobs, staged records, pending rows and dead letters, and the same errors."""
    nights = Nights(service, deleted=DELETED, max_dead_letters="100%", max_removed="100%", **options)
    for night, how in history:
        for name, content in night.items():
            if content is None:
                nights.delete(name)
            else:
                nights.objects.write(f"{SOURCE}{name}", content)
        one, several, nights, prepared = prepared_both_ways(nights, how)
        assert several == one
        if prepared is not None:
            nights.finish(prepared)
            assert prepared.manifest.counts.paid == sum(shard.records for shard in prepared.manifest.shards)
    assert max(nights.paid.values(), default=0) <= 1


def large(count: int = 30, **options: Any) -> Nights:
    """A pipeline with records in three objects, the first of which has most of them; some have equal texts."""
    nights = Nights("openai", **{"max_records": 10, **options})
    nights.put("a.jsonl", *(record(number, f"text {number % 20}") for number in range(count)))
    nights.put("b.jsonl", *(record(number, f"text {number % 20}") for number in range(count, count + 5)))
    nights.put("c.jsonl", record("last", "text 3"), b"{oops")
    return nights


def prepared(nights: Nights, how: Tasks, **options: Any) -> PreparedRun:
    """Prepare the next run, for which there is something to do."""
    result = how.prepare(nights, nights.preparation(**options))
    assert result is not None
    return result


def test_a_large_object_is_read_in_ranges() -> None:
    """The dead letter has the line that it has in its object, whoever read it."""
    nights = large(max_dead_letters="50%")
    nights.put("a.jsonl", *(record(number, "x" * 40) for number in range(29)), b"{oops")
    reads = list[str]()
    nights.objects = Opened(nights.objects, reads)
    run = prepared(nights, Tasks(500))
    letters = [
        (letter.source, letter.line)
        for part in list_parts(nights.objects, nights.layout.dead_letters(run.manifest.run_key, "prepare"))
        for letter in read_letters(nights.objects, part)
    ]
    assert letters == [(f"{SOURCE}a.jsonl", 30), (f"{SOURCE}c.jsonl", 2)]
    # Once to see that it has lines, then once for each of the ranges, and again to stage them.
    ranges = 30 * 60 // 500
    assert reads.count(f"{SOURCE}a.jsonl") == 1 + 2 * ranges


class Opened(MemoryObjects):
    """Objects of another store, which notes what is opened."""

    def __init__(self, other: MemoryObjects, opened: list[str]) -> None:
        super().__init__()
        self.__dict__.update(other.__dict__)
        self._opened = opened

    def open(self, uri: str, **how: Any) -> Any:
        """Open an object."""
        self._opened.append(uri)
        return super().open(uri, **how)


def test_shards_and_jobs_do_not_depend_on_the_splits() -> None:
    """A job whose lines are in two splits has the input that one task writes."""
    keys = set[tuple[str, ...]]()
    for split_bytes in (60, 200, 500, 1_000_000):
        nights = large(max_dead_letters="50%", max_records=7)
        run = prepared(nights, Tasks(split_bytes))
        keys.add(tuple(shard.job for shard in run.manifest.shards))
        assert [shard.records for shard in run.manifest.shards] == [7, 7, 6]
        assert sum(shard.documents for shard in run.manifest.shards) == 36
        nights.finish(run)
        assert nights.paid.total() == 20
        assert nights.is_done()
    assert len(keys) == 1


@pytest.mark.parametrize("when", ["before read", "before stage"])
@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl"])
def test_an_object_that_changes_between_the_tasks_is_left_to_the_next_run(when: str, name: str) -> None:
    """Keys that its records would have paid for are paid by other records with these keys."""
    nights = large(max_dead_letters="50%")

    def change() -> None:
        nights.put(name, record("new", "new"), record(1, "text 1"))

    run = prepared(nights, Tasks(200, events={when: change}))
    assert run.ledger.unread == [f"{SOURCE}{name}"]
    staged = {each.uri for each in nights.staged(run)}
    assert staged == {f"{SOURCE}{other}" for other in ("a.jsonl", "b.jsonl", "c.jsonl") if other != name}
    nights.finish(run)
    assert nights.paid.total() == len({json.loads(each.record)["text"] for each in nights.staged(run)})
    nights.run(max_dead_letters="100%")
    assert max(nights.paid.values()) == 1
    assert nights.index["new"]["text"] == "new"
    assert nights.is_done()


@pytest.mark.parametrize("when", ["before read", "before stage", "before reserve"])
def test_another_run_between_the_tasks_is_noticed(when: str) -> None:
    """It pays for what both need; this run writes it, unless the other one committed the same before."""
    nights = large(max_dead_letters="50%")
    nights.delete("c.jsonl")
    other = copy.copy(nights)
    # Another scope of the same pipeline, so that both may commit.
    other.include, other.runs = ("b.jsonl",), 100
    run = prepared(nights, Tasks(200, events={when: lambda: other.finish(other.prepare())}))
    assert run.manifest.counts.paid == 15
    nights.finish(run)
    assert max(nights.paid.values()) == 1
    assert nights.paid.total() == 20
    assert len(nights.index) == 35
    assert nights.is_done()


@pytest.mark.parametrize("ends", [True, False])
def test_an_old_listing_is_not_compared(*, ends: bool) -> None:
    """Objects that another run has read since would count as removed."""
    nights = large(max_dead_letters="50%", on_removed="delete")

    def newer_run() -> None:
        nights.put("d.jsonl", record("d", "d"))
        newer = nights.prepare()
        if ends:
            nights.finish(newer)

    with pytest.raises(ClaimLost, match="run run2 has claimed this scope after prepare of this run listed the source"):
        Tasks(200, events={"before read": newer_run}).prepare(nights, nights.preparation())
    if ends:
        assert nights.is_done()
        assert nights.index["d"]["text"] == "d"


@pytest.mark.parametrize("options", [{"dry_run": True}, {"limit": 5}])
def test_a_dry_run_and_a_run_with_a_limit_are_prepared_by_one_task(options: dict[str, Any]) -> None:
    """So is one whose objects that changed are small, though the others are large."""
    nights = large(max_dead_letters="50%")
    assert not begin(nights.objects, nights.layout, nights.preparation(**options), SpreadSettings(100))
    assert begin(nights.objects, nights.layout, nights.preparation(), SpreadSettings(100))
    nights.run()
    nights.put("b.jsonl", record("b", "b"))
    small = nights.preparation()
    plan = nights.layout.spread_plan(small.plan.manifest.run_key)
    nights.objects.write(plan, b"of an earlier attempt")
    assert not begin(nights.objects, nights.layout, small, SpreadSettings(100))
    assert nights.objects.head(plan) is None


def test_refusals_are_those_of_one_task() -> None:
    """Before anything is paid for."""
    nights = large(max_dead_letters="0%")
    with pytest.raises(FatalError, match="1 of 37 records are dead letters, and max_dead_letters is 0%"):
        Tasks(100).prepare(nights, nights.preparation())
    nights = large(120, on_removed="delete", max_dead_letters="50%")
    nights.run()
    nights.put("b.jsonl", *(record(f"b{number}", "b") for number in range(40)))
    nights.delete("a.jsonl")
    with pytest.raises(ConfigError, match="125 of 126 documents would be deleted"):
        Tasks(100).prepare(nights, nights.preparation())
