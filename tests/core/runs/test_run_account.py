"""The account of a run adds up what its stages counted, or fails the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.runs.run_account import ShardRunAccount, ShardRunCounts, add_up, reconcile
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import IngestCounts, IngestReport, SourceCounts
from opensearch_batch.core.types.manifest import Manifest, PrepareCounts, PreparedShard, Shard, SourceRange
from tests.core.memory_objects import MemoryObjects

LAYOUT = Layout("s3://work", "p")


def report(*, read: int, dead_letters: str | None = None, **counts: Any) -> IngestReport:
    """Return the report of a shard whose rows are in two files, of which the first has the records."""
    sources = [SourceCounts("records", read=read), SourceCounts("output", read=7)]
    return IngestReport("i", "DONE", IngestCounts(read=read + 7, sources=sources, **counts), dead_letters)


def account(prepared: PrepareCounts, *reports: IngestReport | None, letters: str | None = None) -> ShardRunAccount:
    """Reconcile a run with a shard for each report; None for a shard without one."""
    objects, shards = MemoryObjects(), list[PreparedShard]()
    for number, each in enumerate(reports):
        shard = Shard(f"{number:04d}", "in", "k", 1, 1)
        shards.append(PreparedShard(shard, [SourceRange("s3://d/a", 1, 1)]))
        if each is not None:
            save(objects, LAYOUT.ingest_report("r", shard.id), each)
    return reconcile(objects, LAYOUT, Manifest("p", "r", "s3://d/", "openai", "m", prepared, shards, letters))


FIRST = report(read=5, indexed=3, unchanged=1, dead_letters="s3://w/one/", unrouted=1)
SECOND = report(read=4, indexed=1, dropped=1, superseded=2)


def test_a_run_is_the_sum_of_its_stages() -> None:
    """Records are counted by prepare, their verdicts by the ingests; dead letters by both."""
    first = msgspec.structs.replace(FIRST, counts=msgspec.structs.replace(FIRST.counts, dead_letters=2))
    found = account(PrepareCounts(12, 9, 3), first, SECOND, letters="s3://w/prepare/")
    assert found.counts == ShardRunCounts(
        read=12, indexed=4, unchanged=1, dead_letters=5, unrouted=1, dropped=1, superseded=2, shards=2
    )
    assert found.dead_letters == ["s3://w/prepare/", "s3://w/one/"]
    assert list(found.alerts()) == [
        ("dead_letters", "5 dead letters of 12 records: s3://w/prepare/, s3://w/one/"),
    ]


@dataclass(frozen=True)
class Case:
    """Counts of prepare that the ingests contradict, and how many records they account for."""

    prepared: PrepareCounts
    accounted: int


@pytest.mark.parametrize(
    "case",
    [
        Case(PrepareCounts(10, 10), 9),
        Case(PrepareCounts(8, 8), 9),
        Case(PrepareCounts(9, 6, 3), 12),
        Case(PrepareCounts(6, 3, 3), 12),
    ],
    ids=["one is lost", "one is too many", "rejected ones were read", "more than were read"],
)
def test_a_run_that_does_not_add_up_fails(case: Case) -> None:
    """A record too many is as wrong as one that is lost."""
    read = case.prepared.read
    with pytest.raises(FatalError, match=f"s3://d/: read {read} records, but {case.accounted} are accounted for"):
        account(case.prepared, FIRST, SECOND)


def test_a_shard_without_a_report_fails_the_run() -> None:
    """What its records became is unknown, and the stage to clear is named."""
    uri = LAYOUT.ingest_report("r", "0001")
    with pytest.raises(FatalError, match=re.escape(f"{uri}: shard 0001 has no report; clear its ingest")):
        account(PrepareCounts(9, 9), FIRST, None)


def test_a_record_of_several_sinks_is_read_once_and_written_to_each() -> None:
    """What was read, routed or dropped is taken from the first sink."""
    total, letters = add_up([[FIRST, SECOND], [SECOND]])
    assert {name: count for name, count in total.items() if count} == {
        "read": 12 + 11,
        "indexed": 5,
        "unchanged": 1,
        "unrouted": 1,
        "dropped": 1,
        "superseded": 2,
    }
    assert letters == ["s3://w/one/"]


@pytest.mark.parametrize(("unrouted", "alerts"), [(5, True), (4, False), (0, False)])
def test_a_run_that_routes_nothing_is_told(unrouted: int, *, alerts: bool) -> None:
    """A few unrouted records are what a condition is for; none at all is a mistake in it."""
    found = account(PrepareCounts(5, 5), report(read=5, indexed=5 - unrouted, unrouted=unrouted))
    assert [event for event, _ in found.alerts()] == (["unrouted"] if alerts else [])
    assert found.all_unrouted == alerts


VERDICTS = (
    "indexed",
    "unchanged",
    "dead_letters",
    "joined",
    "filtered",
    "unrouted",
    "dropped",
    "elsewhere",
    "superseded",
)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_verdict_of_a_row_counts_once(verdict: str) -> None:
    """A row with one verdict is accounted for; without, or with two, it is not."""
    counts = msgspec.structs.replace(IngestCounts(read=2), **{verdict: 2})
    counts.reconcile("i")
    for read in (1, 3):
        with pytest.raises(FatalError, match=f"i: read {read} rows, but the outcomes of 2 rows were counted"):
            msgspec.structs.replace(counts, read=read).reconcile("i")


@pytest.mark.parametrize(("read", "records", "letters"), [(5, 3, 1), (5, 3, 3), (3, 4, 1)])
def test_a_prepare_that_does_not_add_up_fails(read: int, records: int, letters: int) -> None:
    """Each line is a record or a dead letter."""
    PrepareCounts(records + letters, records, letters).reconcile("s")
    verdicts = records + letters
    with pytest.raises(FatalError, match=f"s: read {read} lines, but counted {verdicts} records and dead letters"):
        PrepareCounts(read, records, letters).reconcile("s")
