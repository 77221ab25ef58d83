"""A run commits what it has done, adds up its counts, says what is undone and why, and deletes only what is done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from opensearch_batch.core.data_prepper.scan import Claim, Kind, ScanHead, WorkItem, scan_head
from opensearch_batch.core.data_prepper.scan_account import (
    Committed,
    ScanAccount,
    WorkItemReport,
    account_of,
    commit,
    delete_read,
)
from opensearch_batch.core.data_prepper.scan_prepare import ScanCounts, ScanManifest
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.runs.run_account import RunCounts
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import IngestCounts, IngestReport
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.stored import present

AT = datetime(2026, 11, 21, tzinfo=UTC)
RUN = "run-key"


class Runs:
    """One run of a pipeline in a bucket."""

    def __init__(self, store: S3Objects, bucket: str) -> None:
        self.store, self.bucket = store, bucket
        self.work_prefix = Layout(f"s3://{bucket}/work", "books")

    def work_item(self, name: str, kind: Kind = "data") -> WorkItem:
        """Write an object, and return the work item that the run has claimed for it."""
        return self.claim(WorkItem(name, kind, (self.put(f"in/{name}"),), AT))

    def claim(self, work_item: WorkItem) -> WorkItem:
        """Claim a work item."""

        def claimed(head: ScanHead) -> ScanHead:
            return msgspec.structs.replace(head, claims=head.claims | {work_item.id: Claim(work_item, RUN)})

        scan_head(self.store, self.work_prefix).change(claimed)
        return work_item

    def put(self, key: str, content: bytes = b"row\n") -> ObjectInfo:
        """Write an object."""
        uri = f"s3://{self.bucket}/{key}"
        self.store.write(uri, content)
        return present(self.store.head(uri))

    def manifest(self, *work_items: WorkItem) -> ScanManifest:
        """Return what the run has in hand."""
        shards = [Shard(work_item.id, job=work_item.id) for work_item in work_items if work_item.kind == "job"]
        return ScanManifest("books", RUN, AT, ScanCounts(), list(work_items), shards)

    def done(
        self,
        work_item: WorkItem,
        *counts: IngestCounts,
        run: str = RUN,
        at: datetime = AT,
        read: list[ObjectInfo] | None = None,
    ) -> None:
        """Write the report of a work item, with the counts of each sink."""
        reports = [IngestReport("books", "DONE", each) for each in counts]
        report = WorkItemReport(at, "now", reports, read=read or [])
        save(self.store, self.work_prefix.ingest_report(run, work_item.id), report)

    def commit(self, *work_items: WorkItem) -> Committed:
        """Commit the run."""
        return commit(self.store, self.work_prefix, self.manifest(*work_items))

    def account(self, *work_items: WorkItem) -> ScanAccount:
        """Commit the run and return its account."""
        manifest, committed = self.manifest(*work_items), self.commit(*work_items)
        return account_of(self.store, self.work_prefix, manifest, committed, now=1.0)

    def delete(self, *work_items: WorkItem) -> int:
        """Commit the run and delete what was read."""
        return delete_read(self.store, self.manifest(*work_items), self.commit(*work_items))


@pytest.fixture
def runs(store: S3Objects, bucket: str) -> Runs:
    """A run."""
    return Runs(store, bucket)


def test_rows_are_counted_once_and_writes_for_each_sink(runs: Runs) -> None:
    """Two sinks read the same rows."""
    one, two = runs.work_item("one"), runs.work_item("two", "job")
    first = IngestCounts(read=5, indexed=3, unrouted=1, elsewhere=1)
    runs.done(one, first, IngestCounts(read=5, indexed=1, unrouted=1, elsewhere=3))
    runs.done(two, IngestCounts(read=2, unchanged=1, dropped=1), IngestCounts(read=2, elsewhere=1, dropped=1))
    account = runs.account(one, two)
    assert account.counts == RunCounts(read=7, indexed=4, unchanged=1, unrouted=1, dropped=1)
    assert (account.work_items, account.jobs, account.unfinished, account.all_unrouted) == (2, 1, [], False)


def test_a_report_of_an_earlier_scan_of_the_run_is_not_accepted(runs: Runs) -> None:
    """Prepare was cleared, and the ingest after it has failed."""
    one = runs.work_item("one")
    runs.done(one, IngestCounts(read=5, indexed=5), at=AT - timedelta(minutes=6))
    assert [each.work_item for each in runs.account(one).unfinished] == [one]
    assert runs.delete(one) == 0


def test_a_unit_that_was_taken_afresh_is_not_done_by_an_older_run(runs: Runs) -> None:
    """An object that came back is another work item of the same name; the older run says why it is not done."""
    one = runs.work_item("one")
    runs.done(one, IngestCounts(read=5, indexed=5))
    later = runs.claim(msgspec.structs.replace(one, version=1))
    reasons = [(each.work_item, each.reason) for each in runs.account(one).unfinished]
    assert reasons == [(one, "a later scan has grouped its objects again")]
    assert runs.delete(one) == 0
    assert scan_head(runs.store, runs.work_prefix).load().claimed(RUN) == [later]


def test_what_a_later_run_has_claimed_may_be_done_by_an_earlier_one(runs: Runs) -> None:
    """A user cleared its ingest, and it has written the same documents."""
    one = runs.work_item("one")
    head = scan_head(runs.store, runs.work_prefix)
    head.change(lambda head: msgspec.structs.replace(head, claims={"one": Claim(one, "later")}))
    runs.done(one, IngestCounts(read=5, indexed=5))
    assert runs.account(one).unfinished == []
    assert head.load().claims == {"one": Claim(one, done_for="now")}


def test_a_repeated_commit_changes_nothing(runs: Runs) -> None:
    """Also when a later scan has forgotten the work item, because its objects are gone."""
    one = runs.work_item("one")
    runs.done(one, IngestCounts(read=5, indexed=5))
    head = scan_head(runs.store, runs.work_prefix)
    first = runs.commit(one), head.load()
    assert (runs.commit(one), head.load()) == first
    head.change(lambda head: msgspec.structs.replace(head, claims={}))
    assert runs.account(one).unfinished == []
    assert head.load().claims == {}


def test_a_run_that_writes_nothing_because_of_its_routes_is_known(runs: Runs) -> None:
    """Every row is unrouted."""
    one = runs.work_item("one")
    runs.done(one, IngestCounts(read=5, unrouted=5))
    assert runs.account(one).all_unrouted


def test_what_is_undone_has_a_reason(runs: Runs) -> None:
    """As far as the job's record says it; what an earlier run did is not this one's."""
    rows, earlier, none, refused, failed, running = (
        runs.work_item(name, "data" if name in ("rows", "earlier") else "job")
        for name in ("rows", "earlier", "none", "refused", "failed", "running")
    )
    runs.done(earlier, run="another")
    record = JobRecord("k", "job", "sagemaker", "m", "i", "o", 0.0, ml_task_id="t")
    for work_item, more in (
        (refused, {"refused": "no such role", "ml_task_id": None}),
        (failed, {"end": End("FAILED", 0.0, "bad row")}),
        (running, {}),
    ):
        fields = {name: getattr(record, name) for name in record.__struct_fields__}
        assert JobRecords(runs.store, runs.work_prefix.job(work_item.id)).write(
            JobRecord(**{**fields, **more}), etag=None
        )
    undone = runs.account(rows, earlier, none, refused, failed, running).unfinished
    assert [(each.work_item.id, each.reason, each.failed) for each in undone] == [
        ("rows", "its ingest failed", False),
        ("earlier", "its ingest failed", False),
        ("none", "no job was submitted for it", False),
        ("refused", "its job was refused: no such role", True),
        ("failed", "its job job ended FAILED: bad row", True),
        ("running", "its job job has not ended", False),
    ]


def test_objects_are_deleted_when_their_unit_is_done_and_they_did_not_change(runs: Runs) -> None:
    """By this run: inputs, and what was read of the job's output; an object that is new under its key stays."""
    done, undone, changed = runs.work_item("done", "job"), runs.work_item("undone"), runs.work_item("changed")
    earlier = runs.work_item("earlier")
    runs.done(earlier, run="another")
    output = runs.put("out/done.out")
    runs.done(done, read=[output])
    runs.done(changed)
    runs.put("in/changed", b"new\n")
    assert runs.delete(done, undone, changed, earlier) == 2
    left = [item.uri.removeprefix(f"s3://{runs.bucket}/") for item in runs.store.list(f"s3://{runs.bucket}/in/")]
    assert left == ["in/changed", "in/earlier", "in/undone"]
    assert runs.store.head(output.uri) is None
