"""Documents a second into a real node: ours against the node's ceiling, ML Commons and the hand-glued way.

All bring the same file into the same index on the same node, in turn, and refresh it within the time; each finds a
fresh index and a node at rest. ML Commons reads the file from S3 on loopback, the clients from the disk.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import client, node, rows
from benchmarks.client import Job, Measured
from benchmarks.ml_commons import MLCommons
from benchmarks.others import Others, in_turn
from benchmarks.report import Comparison, Outcome

NAME = "node"
RUNS, QUICK_RUNS, QUICK_ROWS = 5, 1, 1_000
OURS, CEILING, ML_COMMONS = "ours", "pre-encoded bodies, two connections", "ML Commons _batch_ingestion"
BY_HAND = {count: f"parallel_bulk + jsonpath-ng, {count} threads" for count in (4, 2)}
CEILING_BAR, ML_COMMONS_BAR, BY_HAND_BAR, CPU_BAR = 0.95, 1.25, 1.3, 1 / 8
WHAT = "documents/s into a node, two 384-float vectors each"


def run(*, quick: bool = False) -> Outcome:
    """Let all contenders run in turn on a node of their own."""
    count, runs = (QUICK_ROWS, QUICK_RUNS) if quick else (rows.ROWS, RUNS)
    with tempfile.TemporaryDirectory(prefix="rows-") as name, node.started() as target:
        path = Path(name) / "rows.jsonl"
        rows.write_rows(path, count)
        found = client.alternate(_contenders(target, path, count), runs=runs)
    size = f"{count:,} rows of {rows.DIMENSION} floats twice"
    return Outcome(NAME, compare(found), found, [f"{size}; {in_turn(found)}"])


def compare(found: dict[str, list[Measured]]) -> list[Comparison]:
    """Return ours against each rival; of the hand-glued ways the better one counts."""
    by_hand = max(BY_HAND.values(), key=lambda name: _median(found[name]))
    floor = min(run.documents_per_s for run in found[OURS])
    is_never_below = floor >= max(run.documents_per_s for run in found[ML_COMMONS])
    return [
        _speed(found, CEILING, bar=CEILING_BAR),
        _speed(found, ML_COMMONS, bar=ML_COMMONS_BAR, also=("never below its best", is_never_below)),
        _speed(found, by_hand, bar=BY_HAND_BAR),
        _cpu(found, by_hand),
    ]


def _contenders(target: node.Node, path: Path, count: int) -> dict[str, Callable[[], Measured]]:
    ml_commons, others = MLCommons(target, path), Others(target.cpu_s)

    def checked(write: Callable[[], Measured]) -> Callable[[], Measured]:
        def once() -> Measured:
            measured = write()
            target.refuse_other_count(count)
            return measured

        return lambda: others.least_disturbed(once, before=target.fresh_index)

    def process(module: str, **options: int) -> Callable[[], Measured]:
        job = Job(target.url, node.INDEX, str(path), options)
        return checked(lambda: client.run(f"benchmarks.{module}", job))

    return {
        OURS: process("ours"),
        CEILING: process("ceiling"),
        ML_COMMONS: checked(lambda: ml_commons.run(count)),
        **{name: process("by_hand", thread_count=threads) for threads, name in BY_HAND.items()},
    }


def _speed(
    found: dict[str, list[Measured]], rival: str, *, bar: float, also: tuple[str, bool] = ("", True)
) -> Comparison:
    ours, theirs = _median(found[OURS]), _median(found[rival])
    text = ", ".join(filter(None, (f">= {bar} x", also[0])))
    return Comparison(WHAT, rival, ours, theirs, "/s", ours / theirs, text, ours / theirs >= bar and also[1])


def _cpu(found: dict[str, list[Measured]], rival: str) -> Comparison:
    ours, theirs = (statistics.median(run.cpu_ms_per_document for run in found[name]) for name in (OURS, rival))
    what = "processor time of the client for each document"
    return Comparison(what, rival, ours, theirs, "ms", ours / theirs, "<= 1/8", ours / theirs <= CPU_BAR)


def _median(runs: list[Measured]) -> float:
    return statistics.median(run.documents_per_s for run in runs)
