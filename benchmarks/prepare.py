"""New documents to service-ready shards on one core: the task prepare against json.loads and json.dumps.

Prepare also hashes each record for the record ledger and stages it; the rival does neither, so there is no bar.

The rows are the sample's passages, with ids of their own, in a local file; what is made goes nowhere, for both.
SageMaker takes records as they are; for OpenAI each becomes a request, and the record is kept beside it for the join.
"""

from __future__ import annotations

import gzip
import json
import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import client
from benchmarks.client import Job, Measured, alternate
from benchmarks.report import Comparison, Outcome

NAME = "prepare"
SAMPLE = Path(__file__).resolve().parent.parent / "include" / "samples" / "passages.jsonl.gz"
SIZE_MB, QUICK_SIZE_MB, RUNS = 400, 100, 3
MB = 1_000_000
BAR_MEMORY_MB = 477
SERVICES = ("sagemaker", "openai")
OURS, BY_HAND = "ours", "json.loads + json.dumps"


def run(*, quick: bool = False) -> Outcome:
    """Cut the same file by both, for both services, in turn."""
    with tempfile.TemporaryDirectory(prefix="prepare-") as name:
        path = Path(name) / "rows.jsonl"
        size_mb = _write(path, (QUICK_SIZE_MB if quick else SIZE_MB) * MB) / MB
        subjects = {
            f"{service}, {who}": partial(_measure, module, service, path)
            for service in SERVICES
            for who, module in ((OURS, "benchmarks.shards"), (BY_HAND, "benchmarks.shards_by_hand"))
        }
        found = alternate(subjects, runs=1 if quick else RUNS)
    return Outcome(NAME, [_compare(service, found, size_mb) for service in SERVICES] + [_memory(found)], found)


def _measure(module: str, service: str, path: Path) -> Measured:
    return client.run(module, Job("", service, str(path)))


def _compare(service: str, found: dict[str, list[Measured]], size_mb: float) -> Comparison:
    ours, theirs = (
        size_mb / statistics.median(run.cpu_s for run in found[f"{service}, {who}"]) for who in (OURS, BY_HAND)
    )
    ratio = ours / theirs
    return Comparison(f"JSON Lines to shards for {service}, one core", BY_HAND, ours, theirs, "MB/s", ratio)


def _memory(found: dict[str, list[Measured]]) -> Comparison:
    peak = max(run.peak_mb for name, runs in found.items() if name.endswith(OURS) for run in runs)
    return Comparison("peak of memory", "", peak, None, "MiB", None, f"<= {BAR_MEMORY_MB} MiB", peak <= BAR_MEMORY_MB)


def _write(path: Path, size_bytes: int) -> int:
    """Write the sample's passages again and again, each with an id of its own; return the bytes."""
    with gzip.open(SAMPLE) as sample:
        passages = [json.loads(line) for line in sample]
    count = 0
    with path.open("w") as file:
        while file.tell() < size_bytes:
            for passage in passages:
                count += 1
                file.write(json.dumps({**passage, "_id": f"{passage['_id']}-{count}"}, separators=(",", ":")) + "\n")
    return path.stat().st_size
