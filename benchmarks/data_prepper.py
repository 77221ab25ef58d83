"""The third pipeline of the documents' sample: rows in S3 through processors and a route into an index.

S3 is a server on loopback, and the sink a server that takes every document at once, so the client alone is measured.
Data Prepper itself, 2.17 on two idle cores of another machine, took 25 processor seconds for the same rows and 3.6 GB.
"""

from __future__ import annotations

import statistics

from benchmarks import client, rows, sink
from benchmarks.client import Job, Measured
from benchmarks.data_prepper_rows import OBJECTS, put_rows, s3
from benchmarks.report import Comparison, Outcome

NAME = "data_prepper"
ROWS, QUICK_ROWS, RUNS = 100_000, 5_000, 3
BAR_CPU_S, BAR_MB = 2.5, 200
OURS, BY_HAND = "ours", "json + opensearch-py parallel_bulk"
MODULES = {OURS: "benchmarks.data_prepper_ours", BY_HAND: "benchmarks.data_prepper_by_hand"}


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
