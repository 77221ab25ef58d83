"""Ours is what the command line and the DAG's task call for a request. No other module here knows how it is started.

Job options are members of the request: `max_body_bytes`, `max_in_flight`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np  # noqa: F401 - loaded before the clock starts, as the rivals' modules are

from benchmarks.client import Job, serve
from benchmarks.rows import request
from opensearch_batch.core.ingest.batch_ingestion import parse_request
from opensearch_batch.core.ingest.request_ingest import run_batch_ingestion
from opensearch_batch.core.opensearch.client import address_of, opensearch_client
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.counts import DONE
from opensearch_batch.services.registry import row_errors


def prepare(job: Job) -> Callable[[], int]:
    """Return what runs the request and refreshes the index; client and request are made before, as the rivals' are."""
    batch = parse_request(request(Path(job.rows), job.index) | job.options)
    cluster, errors = Cluster(opensearch_client(address_of(job.url)), job.url), row_errors()

    def write() -> int:
        with tempfile.TemporaryDirectory(prefix="ours-") as work:
            report = run_batch_ingestion(batch, LocalFiles(), cluster, work_prefix=work, row_errors=errors)
        if report.state != DONE:
            raise RuntimeError(f"the request ended as {report.state}: {report.dead_letters}")
        return report.counts.indexed

    return write


if __name__ == "__main__":
    serve(prepare)
