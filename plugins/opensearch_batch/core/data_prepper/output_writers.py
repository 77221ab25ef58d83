"""Records which job writes to an output folder, because a scan may find its outputs before they are complete.

All pipelines of a work prefix share these records: one pipeline may submit a job, and another one read its outputs.
"""

from __future__ import annotations

import msgspec

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import BAD_ENDS


class Writer(msgspec.Struct, frozen=True):
    """The job that writes to a folder, as the folder of the job record, and the pipelines that share the job."""

    job: str
    pipelines: list[str]


def record_writer(objects: Objects, layout: Layout, folder: str, job: str) -> None:
    """Record, before any output can exist, that a job of this pipeline writes to a folder."""

    def recorded(writer: Writer | None) -> Writer | None:
        # Pipelines with the same inputs and model share a job.
        pipelines = writer.pipelines if writer else []
        return None if layout.pipeline in pipelines else Writer(job, [*pipelines, layout.pipeline])

    JsonDocument(objects, layout.output_writer(folder), Writer).update(recorded)


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
