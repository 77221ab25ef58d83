"""Creates the account of a scan run: the sum of its ingest reports, and the unfinished work items with reasons."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from opensearch_batch.core.data_prepper.scan import WorkItem
from opensearch_batch.core.data_prepper.scan_prepare import ScanCounts, ScanManifest
from opensearch_batch.core.data_prepper.scan_state import ScanStateFile
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.runs.run_account import RunAccount, RunCounts, add_up
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.job import BAD_ENDS


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


def account_of(objects: Objects, layout: Layout, manifest: ScanManifest, *, sinks: int) -> ScanAccount:
    """Return the account of a run: the sum of the reports of completed work items, and the unfinished work items."""
    state_file, shards = ScanStateFile(objects, layout), {shard.id: shard for shard in manifest.shards}
    done, unfinished, gone = list[WorkItem](), list[UnfinishedWorkItem](), 0
    for work_item in manifest.work_items:
        mark = state_file.done(work_item)
        if mark is not None and mark.run == manifest.run_key:
            done.append(work_item)
            gone += mark.gone
        elif shard := shards.get(work_item.id):
            unfinished.append(_unfinished(objects, layout.job(shard.job), work_item))
        else:
            unfinished.append(UnfinishedWorkItem(work_item, "its ingest failed"))
    total, dead_letters = add_up(_reports(objects, layout, manifest.run_key, work_item, sinks) for work_item in done)
    return ScanAccount(
        manifest.pipeline,
        manifest.run_key,
        RunCounts.of(total),
        dead_letters,
        objects=manifest.counts,
        work_items=len(manifest.work_items),
        jobs=len(manifest.shards),
        unfinished=unfinished,
        gone=gone,
    )


def _reports(objects: Objects, layout: Layout, run_key: str, work_item: WorkItem, sinks: int) -> Iterator[IngestReport]:
    for number in range(sinks):
        uri = layout.ingest_report(run_key, f"{work_item.id}-{number}")
        if (report := JsonDocument(objects, uri, IngestReport).read()) is not None:
            yield report


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


def delete_read(objects: Objects, layout: Layout, manifest: ScanManifest) -> int:
    """Delete the inputs and rows of the work items that this run completed; return the number of deleted objects.

    Objects that an earlier run completed are kept, because this run may write to other sinks. An object that has
    changed since the scan is kept, because the next scan must read it.
    """
    deleted, state_file = 0, ScanStateFile(objects, layout)
    for work_item in manifest.work_items:
        done = state_file.done(work_item)
        for item in (*work_item.objects, *done.read) if done is not None and done.run == manifest.run_key else ():
            current = objects.head(item.uri)
            if current is not None and current.etag == item.etag:
                objects.delete(item.uri)
                deleted += 1
    return deleted
