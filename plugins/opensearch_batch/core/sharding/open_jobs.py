"""Shards of jobs that other runs have opened: a run that needs the same predictions waits for the same jobs."""

from __future__ import annotations

from msgspec.structs import replace

from opensearch_batch.core.errors import AnswersUnusable
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import BAD_ENDS, JobRecord
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.core.types.shard_limits import ShardLimits


class OpenJobs:
    """The jobs below a work prefix; `realtime_below` is as in `CutOptions`, `writes` is False in a dry run."""

    def __init__(
        self, objects: Objects, layout: Layout, limits: ShardLimits, *, realtime_below: int, writes: bool
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._limits = limits
        self._realtime_below = realtime_below
        self._writes = writes

    def shard(self, job: str, records: int) -> Shard:
        """Return a shard of a job with this number of records.

        Raises:
            AnswersUnusable: its input is missing, or it failed and is larger than a shard may be now.
        """
        record = JobRecords(self._objects, self._layout.job(job)).read()
        uri = self._layout.job_input(job) if record is None else record.input
        stored = self._objects.head(uri)
        if stored is None and (record is None or record.removed_at is not None):
            raise AnswersUnusable(f"{uri}: the input of this job is missing; its records are paid for", name=job)
        size_bytes = stored.size_bytes if stored else 0
        if self._writes:
            if record is not None and _has_failed(record) and self._limits.exceeded_by(records, size_bytes):
                cause = "its job failed, and it is larger than a shard may be now; its records are cut again"
                raise AnswersUnusable(f"{uri}: {cause}", name=job)
            # The job may be old. The time of this file tells retention that a run needs it.
            self._objects.write(f"{self._layout.job(job)}/needed", b"")
        shard = Shard("", job, uri, records, size_bytes, realtime=self._is_realtime(record, records))
        return shard if record is None else replace(shard, etag=record.input_etag)

    def _is_realtime(self, record: JobRecord | None, records: int) -> bool:
        """Return whether the records of a shard are predicted in real time; without a record, likely."""
        is_too_small = records < max(self._realtime_below, self._limits.min_records)
        return is_too_small if record is None else record.realtime


def _has_failed(record: JobRecord) -> bool:
    """Return whether a job did not succeed or was refused, and not only for a while."""
    return record.restage if record.end is None else record.end.state in BAD_ENDS
