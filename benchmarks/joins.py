"""The join's figures as rows of the table; how they are measured stands in `benchmarks.join`."""

from __future__ import annotations

from benchmarks import join
from benchmarks.report import Comparison, Outcome

NAME = "join"
ROWS, QUICK_ROWS = 1_000_000, 20_000


def run(*, quick: bool = False) -> Outcome:
    """Measure every case of the join."""
    count = QUICK_ROWS if quick else ROWS
    found = join.run(rows=count)
    seconds = {result.name: result for result in found}
    return Outcome(NAME, [compare(result) for result in seconds.values()], {}, [f"{count:,} rows on each side"])


def compare(result: join.Result) -> Comparison:
    """Return seconds and peak of one case, against the same rows in the same order where there is such a case."""
    rival = "the same, same order" if result.rival_seconds else ""
    what = f"join: {result.name}, peak {result.peak_mb:.0f} MiB"
    theirs, ratio = (result.rival_seconds, result.ratio) if result.rival_seconds else (None, None)
    return Comparison(what, rival, result.seconds, theirs, "s", ratio)
