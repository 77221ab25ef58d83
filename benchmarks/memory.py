"""Memory is bounded by configuration, never by the file: one of 4 GB takes what one of 1 GB takes.

But for the ids that were met, 21 to 29 bytes each (`core/ingest/spill.py`): some 8 MB for the rows that the larger
file has more.

The target is a server that takes everything at once, so that the client alone is measured.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks import client, rows, sink
from benchmarks.client import Job, Measured
from benchmarks.report import Comparison, Outcome

NAME = "memory"
SIZES_MB, QUICK_SIZES_MB = (1_000, 4_000), (50, 200)
# The ids that were met, of four times as many rows.
BAR_MB, APART_MB = 300, 16
MB = 1_000_000
INDEX = "bench"


def run(*, quick: bool = False) -> Outcome:
    """Ingest a small and a large file, each in a process of its own.

    Raises:
        RuntimeError: the disk has no room for the larger file, or documents were lost.
    """
    sizes = QUICK_SIZES_MB if quick else SIZES_MB
    found = {f"{size:,} MB": [measure(size)] for size in sizes}
    return Outcome(NAME, compare(found), found, ["the target takes every document at once and keeps none"])


def measure(size_mb: int) -> Measured:
    """Ingest a file of that size."""
    with tempfile.TemporaryDirectory(prefix="memory-") as name, sink.started() as url:
        free_mb = shutil.disk_usage(name).free // MB
        if free_mb < 2 * size_mb:
            raise RuntimeError(f"{name}: {free_mb} MB are free, {2 * size_mb} are needed; give another TMPDIR")
        path = Path(name) / "rows.jsonl"
        count = rows.write_bytes(path, size_mb * MB)
        measured = client.run("benchmarks.ours", Job(url, INDEX, str(path)))
    if measured.documents != count:
        raise RuntimeError(f"{measured.documents} of {count} documents were written")
    return measured


def compare(found: dict[str, list[Measured]]) -> list[Comparison]:
    """Return the peaks against the bar and one another, and how fast the client alone is."""
    (small, first), (large, last) = ((size, runs[0]) for size, runs in found.items())
    ratio = last.peak_mb / first.peak_mb
    holds = max(first.peak_mb, last.peak_mb) <= BAR_MB and last.peak_mb - first.peak_mb <= APART_MB
    bar = f"<= {BAR_MB} MiB, and <= {APART_MB} MiB apart"
    return [
        Comparison(f"peak of memory, {large}", small, last.peak_mb, first.peak_mb, "MiB", ratio, bar, holds),
        _beside(f"documents/s of the client alone, {large}", small, last.documents_per_s, first.documents_per_s, "/s"),
        _beside(
            f"its processor time for each document, {large}",
            small,
            last.cpu_ms_per_document,
            first.cpu_ms_per_document,
            "ms",
        ),
    ]


def _beside(what: str, rival: str, ours: float, theirs: float, unit: str) -> Comparison:
    return Comparison(what, rival, ours, theirs, unit, ours / theirs)
