"""Cuts a file into shards as the task prepare does: one process, measured by `benchmarks.prepare`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from opensearch_batch.core.sharding.shard_writer import ShardWriter

from benchmarks.client import Job, serve
from opensearch_batch.core.ingest.prediction_map import contains_record
from opensearch_batch.core.jobs.contract import job_keys
from opensearch_batch.core.sharding.listing import list_source
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.shard_limits import ShardLimits
from opensearch_batch.services.registry import adapter_of

INPUTS = ["$.text"]
CHUNK_BYTES = 1 << 20
SHARD_RECORDS, SHARD_BYTES = 50_000, 100_000_000


class Discarding(LocalFiles):
    """Takes every object at once and keeps none."""

    def upload(self, uri: str, content: IO[bytes]) -> None:  # noqa: ARG002 - it goes nowhere
        """Read it to its end."""
        while content.read(CHUNK_BYTES):
            pass


def work(job: Job) -> Callable[[], int]:
    """Prepare for `job.index`, which names the service."""
    # Loaded where it is used; what Python has to load is left out, as for the rival.
    importlib.import_module("numpy")
    path = Path(job.rows)
    objects = Discarding(path.parent)
    adapter = adapter_of(job.index)
    parameters = adapter.example_parameters

    def cut() -> int:
        with DeadLetters(objects, "s3://work/dead/") as dead:
            shards, counts = ShardWriter(
                objects,
                Layout("s3://work", "bench"),
                limits=ShardLimits(SHARD_RECORDS, SHARD_BYTES, adapter.limits.max_record_bytes),
                request_line=adapter.request_line(parameters, INPUTS),
                form=adapter.line_form(parameters, INPUTS),
                keeps_records=not contains_record(adapter, parameters),
                job_key=job_keys(adapter, parameters, INPUTS),
                dead=dead,
            ).run(list_source(objects, path.name))
        written = sum(prepared.shard.records for prepared in shards)
        if written != counts.read:
            raise RuntimeError(f"{written} of {counts.read} records were written")
        return written

    return cut


if __name__ == "__main__":
    serve(work)
