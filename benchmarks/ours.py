"""Ours is one request in one process, as the command line runs it; no other module here knows how it is started.

Job options are members of the request: `max_body_bytes`, `max_in_flight`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import opensearchpy  # noqa: F401 - loaded before the clock starts, as the rivals do

from benchmarks.client import Job, serve
from benchmarks.rows import request
from opensearch_batch.core.clients import address_of, opensearch_client
from opensearch_batch.core.cluster import Cluster
from opensearch_batch.core.ingest import ingest_request
from opensearch_batch.core.local_files import LocalFiles
from opensearch_batch.core.request import parse_request
from opensearch_batch.core.stores import Stores


def prepare(job: Job) -> Callable[[], int]:
    """Return what runs the request; it refreshes the index itself."""

    def write() -> int:
        cluster = Cluster(opensearch_client(address_of(job.url)), job.url)
        with tempfile.TemporaryDirectory(prefix="ours-") as name:
            work = Path(name) / "work"
            batch = parse_request(request(Path(job.rows), job.index, work=work) | job.options)
            report = ingest_request(batch, Stores(local=LocalFiles), cluster, work=str(work))
        return report.counts.indexed

    return write


if __name__ == "__main__":
    serve(prepare)
