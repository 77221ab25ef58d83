"""The third pipeline of the documents' sample: rows in S3 through processors and a route into an index.

S3 is a server on loopback, and the sink a server that takes every document at once, so the client alone is measured.
Data Prepper itself, 2.17 on two idle cores of another machine, took 25 processor seconds for the same rows and 3.6 GB.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import client, rows, sink
from benchmarks.client import Job, Measured
from benchmarks.report import Comparison, Outcome
from opensearch_batch.core.clients import s3_client

NAME = "data_prepper"
ROWS, QUICK_ROWS, OBJECTS, RUNS = 100_000, 5_000, 5, 3
BAR_CPU_S, BAR_MB = 2.5, 200
OURS, BY_HAND = "ours", "json + opensearch-py parallel_bulk"
MODULES = {OURS: "benchmarks.data_prepper_ours", BY_HAND: "benchmarks.data_prepper_by_hand"}
BUCKET = "bench"
PREFIX = "sagemaker/output/"
START_S = 30.0


def run(*, quick: bool = False) -> Outcome:
    """Bring the rows in, ours and the rival in turn.

    Raises:
        RuntimeError: documents were lost.
    """
    count = QUICK_ROWS if quick else ROWS
    with s3() as endpoint, sink.started() as url:
        put_rows(endpoint, count)
        job = Job(url, "bench", endpoint)
        found = client.alternate(
            {name: lambda module=module: measure(module, job, count) for name, module in MODULES.items()},  # type: ignore[misc] # bound now, not later
            runs=1 if quick else RUNS,
        )
    return Outcome(
        NAME, compare(found, count), found, [f"{count:,} rows of {rows.DIMENSION} floats, {OBJECTS} objects"]
    )


def measure(module: str, job: Job, count: int) -> Measured:
    """Let a client bring in all rows."""
    measured = client.run(module, job)
    if measured.documents != count:
        raise RuntimeError(f"{module}: {measured.documents} of {count} documents were written")
    return measured


def compare(found: dict[str, list[Measured]], count: int) -> list[Comparison]:
    """Return processor time for 100,000 rows, memory, and documents a second."""
    scale = ROWS / count

    def median(name: str, value: str) -> float:
        return float(statistics.median(getattr(run, value) for run in found[name]))

    cpu, rival_cpu = (scale * median(name, "cpu_s") for name in (OURS, BY_HAND))
    peak, rival_peak = (median(name, "peak_mb") for name in (OURS, BY_HAND))
    speed, rival_speed = (median(name, "documents_per_s") for name in (OURS, BY_HAND))
    return [
        Comparison(
            "processor time for 100,000 rows",
            BY_HAND,
            cpu,
            rival_cpu,
            "s",
            cpu / rival_cpu,
            f"<= {BAR_CPU_S} s",
            cpu <= BAR_CPU_S,
        ),
        Comparison(
            "peak of memory", BY_HAND, peak, rival_peak, "MiB", peak / rival_peak, f"<= {BAR_MB} MiB", peak <= BAR_MB
        ),
        Comparison("documents/s", BY_HAND, speed, rival_speed, "/s", speed / rival_speed),
    ]


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
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
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
