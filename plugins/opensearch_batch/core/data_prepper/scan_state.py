"""Scan state on object storage: work items and their claims, which are done, and which job writes to which folder.

Units move by conditional writes of one object, so of two runs that scan at once one sees what the other took.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from opensearch_batch.core.data_prepper.scan import ScanPlan, ScanState, WorkItem
from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import BAD_ENDS
from opensearch_batch.core.types.object_info import ObjectInfo

ATTEMPTS = 20


class Done(msgspec.Struct, frozen=True):
    """That a work item is done: `at` is the work item's, so that one which is taken afresh is not done by this.

    `done_for` says what for, `run` by which run, `read` are the objects whose rows were read for it. `gone` are
    objects that were there no more, though a job had written them.
    """

    at: datetime
    done_for: str
    run: str
    read: list[ObjectInfo] = []
    gone: int = 0


class Writer(msgspec.Struct, frozen=True):
    """Who writes into a folder: the job, by the folder of its record, and the pipelines that it is a job of."""

    job: str
    pipelines: list[str]


class ScanStateFile:
    """What the scans of one pipeline know.

    Args:
        objects: where it lies.
        work: names the locations.
    """

    def __init__(self, objects: Objects, work: Layout) -> None:
        self._objects = objects
        self._work = work

    def take(self, plan: Callable[[ScanState], ScanPlan]) -> ScanPlan:
        """Record what a plan takes; it is made anew when another run scanned meanwhile.

        Raises:
            RetriableError: others were faster again and again.
        """
        uri = self._work.scanned()
        for _ in range(ATTEMPTS):
            stored = self._objects.read(uri)
            made = plan(ScanState() if stored is None else msgspec.json.decode(stored.content, type=ScanState))
            content = msgspec.json.encode(made.known)
            if stored is None:
                taken = self._objects.create(uri, content)
            else:
                taken = self._objects.replace(uri, content, etag=stored.etag)
            if taken:
                return made
        raise RetriableError(f"{uri}: other runs scan at the same time; run again")

    def known(self) -> ScanState:
        """Return what is known now."""
        stored = self._objects.read(self._work.scanned())
        return ScanState() if stored is None else msgspec.json.decode(stored.content, type=ScanState)

    def is_done(self, work_item: WorkItem, done_for: str) -> bool:
        """Say whether a work item is done for this."""
        done = self.done(work_item)
        return done is not None and done.done_for == done_for

    def done(self, work_item: WorkItem) -> Done | None:
        """Return what is noted of a work item that was done since it was taken, for whatever it was."""
        stored = self._objects.read(self._work.done(work_item.id))
        done = None if stored is None else msgspec.json.decode(stored.content, type=Done)
        return done if done is not None and done.at == work_item.at else None

    def note_done(self, work_item: WorkItem, done: Done) -> None:
        """Note that a work item is done: every row of it is in its index, or a dead letter, or counted."""
        self._objects.write(self._work.done(work_item.id), msgspec.json.encode(done))

    def note_writer(self, folder: str, job: str) -> None:
        """Note that a job of this pipeline writes into a folder, before anything can be there.

        Raises:
            RetriableError: others were faster again and again.
        """
        uri = self._work.outputs(folder)
        for _ in range(ATTEMPTS):
            stored = self._objects.read(uri)
            if stored is None:
                content = msgspec.json.encode(Writer(job, [self._work.pipeline]))
                if self._objects.create(uri, content):
                    return
                continue
            # Pipelines of the same inputs and model share a job.
            known = msgspec.json.decode(stored.content, type=Writer).pipelines
            if self._work.pipeline in known:
                return
            content = msgspec.json.encode(Writer(job, [*known, self._work.pipeline]))
            if self._objects.replace(uri, content, etag=stored.etag):
                return
        raise RetriableError(f"{uri}: other runs write it at the same time; run again")


class Writers:
    """Knows of objects which job writes them, if one of ours does."""

    def __init__(self, objects: Objects, work: Layout) -> None:
        self._objects = objects
        self._pipeline = work.pipeline
        start = work.outputs()
        self._notes = {item.uri.removeprefix(start).removesuffix("/job.json"): item.uri for item in objects.list(start)}
        self._held: dict[str, bool] = {}

    def holds(self, uri: str) -> bool:
        """Say whether an object is left alone: a job of this pipeline brings it in itself, others may yet write it."""
        folder = uri.removeprefix("s3://")
        while folder := folder.rpartition("/")[0]:
            if note := self._notes.get(folder):
                if note not in self._held:
                    self._held[note] = self._is_held(note)
                return self._held[note]
        return False

    def _is_held(self, note: str) -> bool:
        stored = self._objects.read(note)
        if stored is None:
            return False
        writer = msgspec.json.decode(stored.content, type=Writer)
        if self._pipeline in writer.pipelines:
            return True
        found = JobRecords(self._objects, writer.job).load()
        end = found[0].end if found else None
        return end is None or end.state in BAD_ENDS
