"""The account of a scan's run: what became of every row and every object, and what is left undone and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from opensearch_batch.core.data_prepper.scan import WorkItem
from opensearch_batch.core.data_prepper.scan_prepare import ScanCounts, ScanManifest
from opensearch_batch.core.data_prepper.scan_state import ScanStateFile
from opensearch_batch.core.ingest.report import IngestReport
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import BAD_ENDS

COUNTED = ("read", "indexed", "unchanged", "dead_letters", "unrouted", "dropped")


class WorkItemCounts(msgspec.Struct, frozen=True):
    """Rows `read` and what became of them; a row that goes to several sinks is written to each."""

    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    unrouted: int = 0
    dropped: int = 0


class Undone(msgspec.Struct, frozen=True):
    """A work item that is not done: its objects, and why, as far as its job's record says it.

    `failed` says that its job ended badly or was refused, so that nothing more comes of it by itself.
    """

    work_item: WorkItem
    reason: str
    failed: bool = False


class ScanAccount(msgspec.Struct, frozen=True):
    """What became of a run; `gone` outputs of jobs should have been read again and were there no more."""

    pipeline: str
    run_key: str
    objects: ScanCounts
    counts: WorkItemCounts
    work_items: int
    jobs: int
    dead_letters: list[str] = []
    undone: list[Undone] = []
    gone: int = 0

    def __str__(self) -> str:
        return f"{self.counts}; objects: {self.objects}"

    @property
    def all_unrouted(self) -> bool:
        """Whether every row that was read goes to no sink."""
        return 0 < self.counts.read == self.counts.unrouted

    def alerts(self) -> Iterator[tuple[str, str]]:
        """Yield the alerts about a run: event and text."""
        counts = self.counts
        if counts.unrouted:
            share = "all of them, so the pipeline writes nothing" if self.all_unrouted else f"of {counts.read}"
            yield (
                "unrouted",
                f"{counts.unrouted} rows unrouted, {share}: no sink takes them; correct routes, or route _default",
            )
        if self.gone:
            yield "gone", f"{self.gone} outputs of jobs are gone and are not read again; the index stays as it was"
        if counts.dead_letters:
            letters = ", ".join(self.dead_letters)
            yield "dead_letters", f"{counts.dead_letters} dead letters of {counts.read} rows: {letters}"


def account_of(objects: Objects, layout: Layout, manifest: ScanManifest, *, sinks: int) -> ScanAccount:
    """Add up what the ingests of all work items counted.

    Rows are read once for each sink; `read`, `unrouted` and `dropped` are those of the first.
    """
    total: Counter[str] = Counter()
    letters, undone, gone = list[str](), list[Undone](), 0
    shards, scanned = {shard.id: shard for shard in manifest.shards}, ScanStateFile(objects, layout)
    for work_item in manifest.work_items:
        done = scanned.done(work_item)
        if done is None or done.run != manifest.run_key:
            shard = shards.get(work_item.id)
            undone.append(
                _undone(objects, layout.job(shard.job), work_item) if shard else Undone(work_item, "its ingest failed")
            )
            continue
        gone += done.gone
        for number, report in enumerate(_reports(objects, layout, manifest.run_key, work_item, sinks)):
            for name in COUNTED if number == 0 else ("indexed", "unchanged", "dead_letters"):
                total[name] += getattr(report.counts, name)
            letters += [report.dead_letters] if report.dead_letters else []
    counts = WorkItemCounts(**total)
    return ScanAccount(
        manifest.pipeline,
        manifest.run_key,
        manifest.counts,
        counts,
        len(manifest.work_items),
        len(manifest.shards),
        letters,
        undone,
        gone,
    )


def _reports(objects: Objects, layout: Layout, run_key: str, work_item: WorkItem, sinks: int) -> Iterator[IngestReport]:
    for number in range(sinks):
        uri = layout.ingest_report(run_key, f"{work_item.id}-{number}")
        if (report := JsonDocument(objects, uri, IngestReport).read()) is not None:
            yield report


def _undone(objects: Objects, folder: str, work_item: WorkItem) -> Undone:
    record = JobRecords(objects, folder).read()
    if record is None:
        return Undone(work_item, "no job was submitted for it")
    if record.refused is not None:
        return Undone(work_item, f"its job was refused: {record.refused}", failed=True)
    if record.end is None:
        return Undone(work_item, f"its job {record.name} has not ended")
    reason = f": {record.end.reason}" if record.end.reason else ""
    return Undone(
        work_item, f"its job {record.name} ended {record.end.state}{reason}", failed=record.end.state in BAD_ENDS
    )


def delete_read(objects: Objects, layout: Layout, manifest: ScanManifest) -> int:
    """Delete the objects of the work items that this run has done, inputs and rows alike; return how many.

    What an earlier run did is no reason: this one may have been asked for something else. An object that changed
    meanwhile is new, and stays.
    """
    deleted, scanned = 0, ScanStateFile(objects, layout)
    for work_item in manifest.work_items:
        done = scanned.done(work_item)
        for item in (*work_item.objects, *done.read) if done is not None and done.run == manifest.run_key else ():
            now = objects.head(item.uri)
            if now is not None and now.etag == item.etag:
                objects.delete(item.uri)
                deleted += 1
    return deleted
