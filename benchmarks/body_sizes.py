"""The writer's defaults come from here: body sizes and connections against the node, with pre-encoded bodies."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import client, node, rows
from benchmarks.client import Job, Measured
from benchmarks.others import Others, in_turn
from benchmarks.report import Comparison, Outcome

NAME = "body_sizes"
RUNS, QUICK_RUNS, QUICK_ROWS = 3, 1, 1_000
BODY_MB, CONNECTIONS = (1, 2, 5, 10), (1, 2, 3, 4)
RIVAL = (5, 2)
MB = 1_000_000


def run(*, quick: bool = False) -> Outcome:
    """Send the same rows in each way, in turn."""
    count, runs = (QUICK_ROWS, QUICK_RUNS) if quick else (rows.ROWS, RUNS)
    ways = [(size, connections) for size in BODY_MB for connections in CONNECTIONS]
    with tempfile.TemporaryDirectory(prefix="rows-") as name, node.started() as target:
        path = Path(name) / "rows.jsonl"
        rows.write_rows(path, count)
        contenders = {_name(way): _way(target, path, way) for way in ways}
        found = client.alternate(contenders, runs=runs)
    return Outcome(NAME, compare(found), found, [f"{count:,} rows; {in_turn(found)}"])


def compare(found: dict[str, list[Measured]]) -> list[Comparison]:
    """Return every way against the one the node's ceiling is measured with."""
    medians = {name: statistics.median(run.documents_per_s for run in runs) for name, runs in found.items()}
    rival = _name(RIVAL)
    return [
        Comparison(f"documents/s of {name}", rival, speed, medians[rival], "/s", speed / medians[rival])
        for name, speed in medians.items()
    ]


def _way(target: node.Node, path: Path, way: tuple[int, int]) -> Callable[[], Measured]:
    size, connections = way
    job = Job(target.url, node.INDEX, str(path), {"body_bytes": size * MB, "connections": connections})

    others = Others(target.cpu_s)
    return lambda: others.least_disturbed(lambda: client.run("benchmarks.ceiling", job), before=target.fresh_index)


def _name(way: tuple[int, int]) -> str:
    return f"bodies of {way[0]} MB, {way[1]} connections"
