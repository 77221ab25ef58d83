"""Stores the state of scans: claims of work items, marks of completed work items, and the job that writes to a folder.

Claims are stored in one object and changed by conditional writes, so the later of two concurrent scans reads the claims
of the earlier scan.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from opensearch_batch.core.data_prepper.scan import ScanPlan, ScanState, WorkItem
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import BAD_ENDS
from opensearch_batch.core.types.object_info import ObjectInfo

ATTEMPTS = 20


class Done(msgspec.Struct, frozen=True):
    """Marks a work item as done. `at` is the time of the work item, so the mark does not apply after a later claim.

    `done_for` is the digest of the processing, `run` the run that did it, `read` the objects whose rows were read, and
    `gone` the number of job outputs that no longer existed.
    """

    at: datetime
    done_for: str
    run: str
    read: list[ObjectInfo] = []
    gone: int = 0


class Writer(msgspec.Struct, frozen=True):
    """The job that writes to a folder, as the folder of the job record, and the pipelines that share the job."""

    job: str
    pipelines: list[str]


class ScanStateFile:
    """Reads and writes the scan state of one pipeline.

    Args:
        objects: the store.
        layout: the locations of this package's files.
    """

    def __init__(self, objects: Objects, layout: Layout) -> None:
        self._objects = objects
        self._layout = layout
        self._document = JsonDocument(objects, layout.scan_state(), ScanState, indent=-1)

    def claim(self, plan: Callable[[ScanState], ScanPlan]) -> ScanPlan:
        """Record the claims of a plan; the plan is computed again if another run scanned meanwhile.

        Raises:
            RetriableError: each attempt conflicted with a concurrent write.
        """
        plans: list[ScanPlan] = []

        def claimed(state: ScanState | None) -> ScanState:
            plans.append(plan(state or ScanState()))
            return plans[-1].state

        self._document.update(claimed, attempts=ATTEMPTS)
        return plans[-1]

    def read(self) -> ScanState:
        """Return the current state."""
        return self._document.read() or ScanState()

    def is_done(self, work_item: WorkItem, processing_digest: str) -> bool:
        """Return whether a work item is done for this digest of the processing."""
        done = self.done(work_item)
        return done is not None and done.done_for == processing_digest

    def done(self, work_item: WorkItem) -> Done | None:
        """Return the mark of a work item that is done since its claim, for any digest; None if it is not done."""
        done = JsonDocument(self._objects, self._layout.done(work_item.id), Done).read()
        return done if done is not None and done.at == work_item.at else None

    def mark_done(self, work_item: WorkItem, done: Done) -> None:
        """Mark a work item as done: every row was written, became a dead letter, or was counted as not written."""
        save(self._objects, self._layout.done(work_item.id), done)

    def record_writer(self, folder: str, job: str) -> None:
        """Record, before any output can exist, that a job of this pipeline writes to a folder.

        Raises:
            RetriableError: each attempt conflicted with a concurrent write.
        """

        def recorded(writer: Writer | None) -> Writer | None:
            # Pipelines with the same inputs and model share a job.
            pipelines = writer.pipelines if writer else []
            return None if self._layout.pipeline in pipelines else Writer(job, [*pipelines, self._layout.pipeline])

        JsonDocument(self._objects, self._layout.output_writer(folder), Writer).update(recorded, attempts=ATTEMPTS)


class Writers:
    """Finds the objects that jobs of this package write."""

    def __init__(self, objects: Objects, layout: Layout) -> None:
        self._objects = objects
        self._pipeline = layout.pipeline
        prefix = layout.output_writer()
        self._files = {
            item.uri.removeprefix(prefix).removesuffix("/job.json"): item.uri for item in objects.list(prefix)
        }
        self._results: dict[str, bool] = {}

    def must_skip(self, uri: str) -> bool:
        """Return whether the scan must skip an object: a job of this pipeline, or a job without success, writes it."""
        folder = uri.removeprefix("s3://")
        while folder := folder.rpartition("/")[0]:
            if file := self._files.get(folder):
                if file not in self._results:
                    self._results[file] = self._holds_back(file)
                return self._results[file]
        return False

    def _holds_back(self, file: str) -> bool:
        writer = JsonDocument(self._objects, file, Writer).read()
        if writer is None:
            return False
        if self._pipeline in writer.pipelines:
            return True
        record = JobRecords(self._objects, writer.job).read()
        end = record.end if record else None
        return end is None or end.state in BAD_ENDS
