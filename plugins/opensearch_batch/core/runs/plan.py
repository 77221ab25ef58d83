"""Dry run: what a run would do and pay for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import BAD_ENDS
from opensearch_batch.core.types.manifest import Manifest, PrepareCounts


class RunPlan(msgspec.Struct, frozen=True):
    """Shards and jobs of a source: `jobs` must be paid for; `done`, `running` and `failed` ones exist already."""

    source: str
    counts: PrepareCounts
    shards: int
    bytes: int
    jobs: int = 0
    done: int = 0
    running: int = 0
    failed: int = 0

    @classmethod
    def of(cls, objects: Objects, layout: Layout, manifest: Manifest) -> RunPlan:
        """Return the plan of a manifest, given the stored job records."""
        stored = [JobRecords(objects, layout.job(prepared.shard.job)).read() for prepared in manifest.shards]
        records = [record for record in stored if record and record.refused is None]
        ends = [record.end for record in records]
        return cls(
            manifest.source,
            manifest.counts,
            len(manifest.shards),
            sum(prepared.shard.bytes for prepared in manifest.shards),
            jobs=len(stored) - len(records),
            done=sum(end is not None and end.state not in BAD_ENDS for end in ends),
            running=sum(end is None for end in ends),
            failed=sum(end is not None and end.state in BAD_ENDS for end in ends),
        )

    def lines(self) -> Iterator[str]:
        """Yield the lines of the log."""
        counts = self.counts
        yield f"{self.source}: {counts.read:,} records, {counts.dead_letters:,} of them dead letters"
        yield f"{self.shards:,} shards, {self.bytes:,} bytes"
        yield (
            f"{self.jobs:,} jobs to pay for; {self.done:,} done, {self.running:,} running, {self.failed:,} failed; "
            "for those that failed, clear batch_predict"
        )
