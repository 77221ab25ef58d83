"""The rows of `data_prepper` and where they lie; the clients that are measured load this, not the harness."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import rows
from opensearch_batch.core.storage.s3_client import s3_client

OBJECTS = 5
BUCKET = "bench"
PREFIX = "sagemaker/output/"
START_S = 30.0


def put_rows(endpoint: str, count: int) -> None:
    """Write the rows, alike in each run, and as long as those that the original was measured with: 82 MB an object."""
    store = client_of(endpoint)
    store.create_bucket(Bucket=BUCKET)
    every, number = rows.short_vectors(rows.TEMPLATES), 0
    for at in range(OBJECTS):
        with tempfile.TemporaryFile() as file:
            for _ in range(count // OBJECTS):
                file.write(_row(every[number % len(every)], number))
                number += 1
            file.seek(0)
            store.upload_fileobj(file, BUCKET, f"{PREFIX}part-{at}.json.out")


def client_of(endpoint: str) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
    """Return a client of the S3 server."""
    return s3_client(endpoint=endpoint, region="us-east-1", access_key="bench", secret_key="bench")  # noqa: S106 - of a server on loopback


@contextmanager
def s3() -> Iterator[str]:
    """Run an S3 server in a process of its own and give its URL."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="s3-") as name, (Path(name) / "log").open("wb") as log:
        command = [sys.executable, "-m", "include.local_stack.s3_server", "--port", str(port)]
        with subprocess.Popen(command, stdout=log, stderr=log) as process:  # noqa: S603 - a module by its name
            try:
                _wait(port)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _wait(port: int) -> None:
    give_up_at = time.monotonic() + START_S
    while time.monotonic() < give_up_at:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the S3 server did not start")


def _row(vector: str, number: int) -> bytes:
    return (
        f'{{"_id":"{number}","text":"what is amber, question {number}","title":"title {number}",'
        f'"metadata":{{"subject":"nothing"}},"SageMakerOutput":{vector}}}\n'
    ).encode()
