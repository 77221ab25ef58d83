"""The account of a run adds up what its stages counted, exactly, or fails the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ledger.verdicts import ShardReport, Verdicts
from opensearch_batch.core.runs.run_account import (
    ShardRunAccount,
    ShardRunCounts,
    Total,
    reconcile,
    written_shards,
)
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import IngestCounts, IngestReport, SourceCounts
from opensearch_batch.core.types.manifest import DELETIONS, Manifest, PrepareCounts, Shard
from tests.core.memory_objects import MemoryObjects
from tests.manifests import manifest_of

LAYOUT = Layout("s3://work", "p")


def manifest(counts: PrepareCounts, *shards: Shard, letters: str | None = None) -> Manifest:
    """Return the manifest of a run."""
    remarks = ["2 documents are kept"]
    return manifest_of(counts=counts, shards=list(shards), dead_letters=letters, version=7, remarks=remarks)


class Shards:
    """The shards of a run, with their reports."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()
        self.shards: list[Shard] = []

    def add(self, name: str, *, unanswered: int = 0, letters: str | None = None, **counts: Any) -> Shard:
        """Add a shard whose ingest counted its records."""
        read = sum(counts.values())
        shard = Shard(name, job="k", records=1, staged=f"staged/{name}", documents=read + unanswered)
        self.shards.append(shard)
        self.report(shard, read=read, shard_digest="", unanswered=unanswered, letters=letters, **counts)
        return shard

    def report(
        self,
        shard: Shard,
        *,
        read: int | None = None,
        shard_digest: str = "",
        unanswered: int = 0,
        letters: str | None = None,
        **counts: int,
    ) -> None:
        """Write a report."""
        read = sum(counts.values()) if read is None else read
        report = ShardReport(
            "i",
            "DONE",
            IngestCounts(read=read, sources=[SourceCounts("staged", read=read)], **counts),
            letters,
            verdicts=Verdicts(shard_digest or manifest(PrepareCounts()).shard_digest(shard), unanswered=unanswered),
        )
        save(self.objects, LAYOUT.ingest_report("r", shard.id), report)

    def account(
        self, prepared: PrepareCounts, *, letters: str | None = None, repaired: Sequence[Shard] = ()
    ) -> ShardRunAccount:
        """Reconcile the run."""
        run = manifest(prepared, *(shard for shard in self.shards if shard not in repaired), letters=letters)
        return reconcile(self.objects, LAYOUT, run, written_shards(self.objects, LAYOUT, run, repaired), now=1.0)


@pytest.fixture
def shards() -> Shards:
    """A run without shards."""
    return Shards()


COUNTS = PrepareCounts(
    objects=9, opened=2, read=20, records=17, dead_letters=3, new=3, input_changed=4, other_changed=5, unchanged=1,
    duplicate=2, tombstone=4, promoted=2, before=30, kept=25, removed=5, paid=7,
)  # fmt: skip


def test_a_run_is_the_sum_of_its_stages(shards: Shards) -> None:
    """Every record that was read has one verdict; a promoted record is read, though its object is not."""
    shards.add("0000", indexed=3, dead_letters=2, unrouted=1, letters="s3://w/one/")
    shards.add("0001", indexed=1, dropped=1, superseded=2, filtered=1, unchanged=1)
    shards.add(DELETIONS, indexed=3, unchanged=2)
    found = shards.account(COUNTS, letters="s3://w/prepare/")
    assert found.counts == ShardRunCounts(
        read=22, indexed=4, unchanged=2, dead_letters=5, unrouted=1, dropped=1, filtered=1, superseded=2, duplicates=2,
        tombstones=4, deleted=3, before=30, kept=25, removed=5, paid=7, objects=9, opened=2, shards=3,
    )  # fmt: skip
    assert found.dead_letters == ["s3://w/prepare/", "s3://w/one/"]
    assert found.remarks == ["2 documents are kept"]
    assert list(found.alerts()) == [
        ("dead_letters", "5 dead letters of 22 records: s3://w/prepare/, s3://w/one/"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"new": 2, "records": 16, "read": 19}, "read 21 records, but 22 are accounted for"),
        ({"new": 4, "records": 18, "read": 21}, "read 23 records, but 22 are accounted for"),
        (
            {"new": 4},
            "read 20 lines, but counted 17 records, 3 dead letters, 2 promoted records and 20 records in classes",
        ),
        ({"removed": 4}, "the ledger had 30 documents, but 25 are kept and 4 are removed"),
    ],
    ids=["one is too many", "one is lost", "classes", "documents"],
)
def test_a_run_that_does_not_add_up_fails(shards: Shards, change: dict[str, int], message: str) -> None:
    """A record too many is as wrong as one that is lost."""
    shards.add("0000", indexed=12)
    shards.account(COUNTS)
    with pytest.raises(FatalError, match=f"s3://d/: {message}"):
        shards.account(msgspec.structs.replace(COUNTS, **change))


def test_waiting_records_are_accounted_for(shards: Shards) -> None:
    """They have no verdict yet."""
    shards.add("0000", indexed=10)
    assert shards.account(msgspec.structs.replace(COUNTS, waiting=2)).counts.waiting == 2


TWO = PrepareCounts(read=2, records=2, new=2)


def test_a_shard_without_a_report_fails_the_run(shards: Shards) -> None:
    """What its records became is unknown, and the stage to clear is named."""
    shards.add("0000", indexed=2)
    uri = LAYOUT.ingest_report("r", "0000")
    shards.objects.delete(uri)
    with pytest.raises(FatalError, match=re.escape(f"{uri}: shard 0000 has no report; clear its ingest")):
        shards.account(TWO)


def test_the_report_of_an_earlier_prepare_is_refused(shards: Shards) -> None:
    """Its verdicts are of other records, however many they are."""
    shard = shards.add("0000", indexed=2)
    earlier = msgspec.structs.replace(manifest(TWO), version=6)
    for shard_digest in (
        earlier.shard_digest(shard),
        manifest(TWO).shard_digest(msgspec.structs.replace(shard, job="other")),
    ):
        shards.report(shard, indexed=2, shard_digest=shard_digest)
        with pytest.raises(
            FatalError, match="the report of shard 0000 belongs to an earlier prepare; clear its ingest"
        ):
            shards.account(TWO)


@pytest.mark.parametrize("indexed", [1, 3])
def test_a_report_with_other_counts_than_the_staged_records_is_refused(shards: Shards, indexed: int) -> None:
    """Even if another shard makes up for it."""
    shard = shards.add("0000", indexed=2)
    shards.report(shard, indexed=indexed)
    with pytest.raises(FatalError, match=f"2 records were staged, but {indexed} have a verdict"):
        shards.account(TWO)


def test_a_repaired_record_counts_once(shards: Shards) -> None:
    """Its verdict is that of the repair."""
    shards.add("0000", indexed=1, unanswered=1)
    with pytest.raises(FatalError, match="1 records have no prediction and were not repaired; clear repair"):
        shards.account(TWO)
    repaired = shards.add("repair", dead_letters=1, letters="s3://w/repair/")
    found = shards.account(TWO, repaired=[repaired])
    assert (found.counts.indexed, found.counts.dead_letters, found.dead_letters) == (1, 1, ["s3://w/repair/"])


def test_an_earlier_repair_does_not_count(shards: Shards) -> None:
    """A task that ends in its trigger keeps the XCom of an earlier attempt."""
    shards.add("0000", indexed=2)
    assert shards.account(TWO, repaired=[shards.add("repair", indexed=2)]).counts.indexed == 2


def row_report(*, read: int, dead_letters: str | None = None, **counts: Any) -> IngestReport:
    """Return a report of rows in two files, of which the first has the records."""
    sources = [SourceCounts("records", read=read), SourceCounts("output", read=7)]
    return IngestReport("i", "DONE", IngestCounts(read=read + 7, sources=sources, **counts), dead_letters)


def test_a_record_of_several_sinks_is_read_once_and_written_to_each() -> None:
    """What was read, routed or dropped is taken from the first sink."""
    first = row_report(read=5, indexed=3, unchanged=1, dead_letters="s3://w/one/", unrouted=1)
    second = row_report(read=4, indexed=1, dropped=1, superseded=2)
    total = Total()
    total.add("a", [first, second])
    total.add("b", [second])
    assert {name: count for name, count in total.counts.items() if count} == {
        "read": 12 + 11,
        "indexed": 5,
        "unchanged": 1,
        "unrouted": 1,
        "dropped": 1,
        "superseded": 2,
    }
    assert total.dead_letters == ["s3://w/one/"]
    assert [(each.id, each.read, each.indexed) for each in total.shards] == [("a", 12, 4), ("b", 11, 1)]


@pytest.mark.parametrize(("unrouted", "opened", "alerts"), [(5, 1, True), (5, 0, False), (4, 1, False), (0, 1, False)])
def test_a_run_that_routes_nothing_is_told(shards: Shards, unrouted: int, opened: int, *, alerts: bool) -> None:
    """A few unrouted records are what a condition is for; none at all in the whole source is a mistake in it."""
    shards.add("0000", indexed=5 - unrouted, unrouted=unrouted)
    found = shards.account(PrepareCounts(objects=1, opened=opened, read=5, records=5, new=5))
    assert [event for event, _ in found.alerts()] == (["unrouted"] if alerts else [])
    assert found.all_unrouted == (unrouted == 5)


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


@pytest.mark.parametrize(
    "verdict",
    [
        "indexed", "unchanged", "duplicates", "tombstones", "superseded", "filtered", "unrouted", "dropped",
        "dead_letters", "waiting",
    ],
)  # fmt: skip
def test_each_verdict_of_a_record_counts_once(verdict: str) -> None:
    """Each of the names in the account is part of the sum."""
    counts = msgspec.structs.replace(ShardRunCounts(read=2), **{verdict: 2})
    counts.reconcile("i")
    with pytest.raises(FatalError, match="i: read 1 records, but 2 are accounted for"):
        msgspec.structs.replace(counts, read=1).reconcile("i")
