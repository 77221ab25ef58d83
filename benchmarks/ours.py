"""Ours is the command line: one request, one process. No other module here knows how it is started.

Job options are members of the request: `max_body_bytes`, `max_in_flight`.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np  # noqa: F401 - loaded before the clock starts, as the rivals do
import opensearchpy  # noqa: F401 - the same

from benchmarks.client import Job, serve
from benchmarks.rows import request
from opensearch_batch.cli import main
from opensearch_batch.cli.ingest import IngestAccount


def prepare(job: Job) -> Callable[[], int]:
    """Return what runs ``opensearch_batch ingest REQUEST.json``; it refreshes the index itself."""
    # The command line loads modules with the first options it reads, which belong to the start: a request that is
    # refused at once makes it load them.
    with contextlib.redirect_stdout(io.StringIO()):
        main(["ingest", os.devnull, "--opensearch-url", job.url, "--json"])

    def write() -> int:
        with tempfile.TemporaryDirectory(prefix="ours-") as name:
            path = Path(name) / "request.json"
            body = request(Path(job.rows), job.index, work=path.with_name("work")) | job.options
            path.write_bytes(msgspec.json.encode(body))
            return ingest(path, job.url).indexed

    return write


def ingest(path: Path, url: str) -> IngestAccount:
    """Run the command and return its account.

    Raises:
        RuntimeError: it did not end well.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["ingest", str(path), "--opensearch-url", url, "--json"])
    if code != 0:
        raise RuntimeError(f"ingest ended with {code}: {printed.getvalue()}")
    return msgspec.json.decode(printed.getvalue(), type=IngestAccount)


if __name__ == "__main__":
    serve(prepare)
