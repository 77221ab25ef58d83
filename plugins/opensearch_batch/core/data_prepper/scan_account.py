"""Commits the run of a scan, and creates its account: the sum of its reports, and the unfinished work items.

The head is changed after all writes, and objects are deleted after the head was changed. So a run that is killed
anywhere leaves work items that are not done, and the next scan repeats them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec

from opensearch_batch.core.data_prepper.scan import WorkItem, scan_head
from opensearch_batch.core.data_prepper.scan_prepare import ScanCounts, ScanManifest
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.runs.run_account import RunAccount, RunCounts, Total
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.job import BAD_ENDS
from opensearch_batch.core.types.object_info import ObjectInfo


class WorkItemReport(msgspec.Struct, frozen=True):
    """What the ingest of a work item did: every row was written, became a dead letter, or was counted as not written.

    `at` is the time of the run's scan, so that no report of an earlier scan of the same run is accepted. `done_for` is
    the digest of the processing. `reports` has one report for each sink, none if no rows were read. `remarks` are for
    the user. `read` are the objects whose rows were read, `gone` counts job outputs that no longer exist.
    """

    at: datetime
    done_for: str
    reports: list[IngestReport] = []
    remarks: list[str] = []
    read: list[ObjectInfo] = []
    gone: int = 0


class Committed(NamedTuple):
    """The reports of the work items that a run has done, by id, and the ids of those that exist in a later version."""

    done: dict[str, WorkItemReport]
    superseded: set[str]


class UnfinishedWorkItem(msgspec.Struct, frozen=True):
    """A work item that is not done, with the reason from the record of its job.

    `failed` is true if the job ended in a bad state or was refused, which only a user can resolve.
    """

    work_item: WorkItem
    reason: str
    failed: bool = False


class ScanAccount(RunAccount, frozen=True, kw_only=True):
    """Account of a run; `gone` counts job outputs that had to be read again but no longer exist."""

    objects: ScanCounts
    work_items: int
    jobs: int
    unfinished: list[UnfinishedWorkItem] = msgspec.field(default_factory=list)
    gone: int = 0

    def alerts(self) -> Iterator[tuple[str, str]]:
        """Yield the alerts about a run: event and text."""
        yield from super().alerts()
        counts = self.counts
        if counts.unrouted:
            share = "all of them, so the pipeline writes nothing" if self.all_unrouted else f"of {counts.read}"
            text = f"{counts.unrouted} rows unrouted, {share}: no sink receives them"
            yield "unrouted", f"{text}; correct the routes, or add the route _default"
        if self.gone:
            yield "gone", f"{self.gone} outputs of jobs no longer exist and are not read again; the index is unchanged"


def commit(objects: Objects, layout: Layout, manifest: ScanManifest) -> Committed:
    """Record in the head of the pipeline which work items this run has done; a repeated call changes nothing."""
    done = dict[str, WorkItemReport]()
    for work_item in manifest.work_items:
        uri = layout.ingest_report(manifest.run_key, work_item.id)
        report = JsonDocument(objects, uri, WorkItemReport).read()
        if report is not None and report.at == manifest.at:
            done[work_item.id] = report
    digests = [(item, done[item.id].done_for) for item in manifest.work_items if item.id in done]
    head = scan_head(objects, layout).change(lambda head: head.committed(digests))
    # A claim that is absent was done, and its objects were deleted since.
    superseded = {item.id for item in manifest.work_items if item.id in head.claims and head.claim(item) is None}
    return Committed({id_: report for id_, report in done.items() if id_ not in superseded}, superseded)


def account_of(
    objects: Objects, layout: Layout, manifest: ScanManifest, committed: Committed, *, now: float
) -> ScanAccount:
    """Return the account of a run at a time: the sum of the reports of done work items, and the unfinished ones."""
    shards, unfinished = {shard.id: shard for shard in manifest.shards}, list[UnfinishedWorkItem]()
    for work_item in manifest.work_items:
        if work_item.id in committed.done:
            continue
        if work_item.id in committed.superseded:
            unfinished.append(UnfinishedWorkItem(work_item, "a later scan has grouped its objects again"))
        elif shard := shards.get(work_item.id):
            unfinished.append(_unfinished(objects, layout.job(shard.job), work_item))
        else:
            unfinished.append(UnfinishedWorkItem(work_item, "its ingest failed"))
    total = Total()
    for id_, report in committed.done.items():
        total.add(id_, report.reports)
    return ScanAccount(
        manifest.pipeline,
        manifest.run_key,
        RunCounts.of(total.counts),
        total.dead_letters,
        now,
        manifest.attempt,
        total.reasons,
        total.throughput,
        total.shards,
        objects=manifest.counts,
        work_items=len(manifest.work_items),
        jobs=len(manifest.shards),
        unfinished=unfinished,
        gone=sum(report.gone for report in committed.done.values()),
    )


def _unfinished(objects: Objects, folder: str, work_item: WorkItem) -> UnfinishedWorkItem:
    record = JobRecords(objects, folder).read()
    if record is None:
        return UnfinishedWorkItem(work_item, "no job was submitted for it")
    if record.refused is not None:
        return UnfinishedWorkItem(work_item, f"its job was refused: {record.refused}", failed=True)
    if record.end is None:
        return UnfinishedWorkItem(work_item, f"its job {record.name} has not ended")
    reason = f": {record.end.reason}" if record.end.reason else ""
    return UnfinishedWorkItem(
        work_item, f"its job {record.name} ended {record.end.state}{reason}", failed=record.end.state in BAD_ENDS
    )


def delete_read(objects: Objects, manifest: ScanManifest, committed: Committed) -> int:
    """Delete the inputs and rows of the work items that this run completed; return the number of deleted objects.

    Objects that an earlier run completed are kept, because this run may write to other sinks. An object that has
    changed since the scan is kept, because the next scan must read it.
    """
    deleted = 0
    for work_item in manifest.work_items:
        report = committed.done.get(work_item.id)
        for item in (*work_item.objects, *report.read) if report is not None else ():
            current = objects.head(item.uri)
            if current is not None and current.etag == item.etag:
                objects.delete(item.uri)
                deleted += 1
    return deleted
