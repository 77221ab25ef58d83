"""Prepares a file as the task prepare does: one process, measured by `benchmarks.prepare`.

All records are new, so each is hashed for the record ledger, staged, and written to the input of a job.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from benchmarks.client import Job, serve
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.runs.preparation import Preparation
from opensearch_batch.core.runs.prepare_options import PrepareOptions
from opensearch_batch.core.sharding.listing import list_source
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.manifest import Manifest
from opensearch_batch.services.registry import adapter_of

INPUTS = ("$.text",)
CHUNK_BYTES = 1 << 20
SHARD_RECORDS, SHARD_BYTES = 50_000, 100_000_000
WORK = "s3://work"


class Discarding(LocalFiles):
    """Takes staged records and inputs of jobs at once and keeps none."""

    def upload(self, uri: str, content: IO[bytes]) -> None:
        """Read it to its end."""
        if "/rows/" in uri or "/open/" in uri:
            super().upload(uri, content)
            return
        while content.read(CHUNK_BYTES):
            pass


def work(job: Job) -> Callable[[], int]:
    """Prepare for `job.index`, which names the service."""
    # Loaded where they are used; what Python has to load is left out, as for the rival.
    for name in ("numpy", "pyarrow.compute", "pyarrow.parquet"):
        importlib.import_module(name)
    path = Path(job.rows)
    objects, layout = Discarding(path.parent), Layout(WORK, f"bench-{job.index}")
    adapter = adapter_of(job.index)
    manifest = Manifest(
        pipeline=layout.pipeline,
        run_key="run",
        source=path.name,
        scope="scope",
        service=adapter.name,
        model_id="m",
        index="bench",
        parameters=dict(adapter.example_parameters),
        inputs=INPUTS,
        predictions=layout.predictions(),
    )
    options = PrepareOptions(max_records=SHARD_RECORDS, max_bytes=SHARD_BYTES, is_trial=True)
    request = IngestRequest("bench", {"_id": "$._id", "text": "$.text", "embedding": "prediction"})

    def prepare() -> int:
        listing = list_source(objects, path.name)
        prepared = Preparation(
            objects, layout, listing, manifest, adapter=adapter, request=request, at_s=0.0, options=options
        ).run()
        counts = None if prepared is None else prepared.manifest.counts
        if counts is None or counts.new != counts.read:
            raise RuntimeError(f"not all records are new: {counts}")
        return counts.read

    return prepare


if __name__ == "__main__":
    serve(work)
