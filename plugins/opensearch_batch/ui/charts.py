"""Data of the charts, which a script draws; pages show the same numbers in tables."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from opensearch_batch.core.runs.run_summary import RunSummary
from opensearch_batch.core.types.throughput import Interval, Throughput

# Gaps in which nothing happened are drawn as zeros, if they are not too many points.
MAX_POINTS = 1_000
MIN_RUNS = 2


class Series(msgspec.Struct, frozen=True):
    """One line or stack of bars: its `values`, None for none, on an axis with a `unit`, drawn in a `color`."""

    label: str
    unit: str
    color: str
    values: list[float | None]


class Chart(msgspec.Struct, frozen=True):
    """Series over times in epoch seconds, as an `area`, `lines` or stacked `bars`."""

    kind: str
    title: str
    times: list[float]
    series: list[Series]


def throughput_charts(throughput: Throughput) -> list[Chart]:
    """Return records a second and the latency of bulk requests over a run; none before the first verdict."""
    by_start, width_s = {each.start_s: each for each in throughput.intervals}, throughput.width_s
    if not by_start:
        return []
    starts = sorted(by_start)
    steps = int((starts[-1] - starts[0]) / width_s) + 1
    if steps <= MAX_POINTS:
        starts = [starts[0] + step * width_s for step in range(steps)]
    intervals = [by_start.get(start, Interval(start)) for start in starts]
    rates: list[float | None] = [round(each.documents / width_s, 2) for each in intervals]
    means = [round(1000 * each.latency_s, 1) if each.requests else None for each in intervals]
    slowest = [round(1000 * each.slowest_s, 1) if each.requests else None for each in intervals]
    latencies = [Series("mean", "ms", "good", means), Series("slowest", "ms", "bad", slowest)]
    return [
        Chart("area", "Records a second", starts, [Series("records a second", "/s", "busy", rates)]),
        Chart("lines", "Latency of bulk requests, ms", starts, latencies),
    ]


def history_chart(runs: Sequence[RunSummary]) -> Chart | None:
    """Return what was new, changed and removed in each run; None with fewer than two runs."""
    ended = [each for each in reversed(runs) if each.has_ended and not each.is_scan]
    if len(ended) < MIN_RUNS:
        return None
    prepared = [each.prepared for each in ended]
    series = [
        Series("new", "records", "good", [each.new for each in prepared]),
        Series("changed", "records", "busy", [each.input_changed + each.other_changed for each in prepared]),
        Series("removed", "records", "idle", [each.removed for each in prepared]),
        Series("dead letters", "records", "bad", [each.dead_letters for each in ended]),
    ]
    return Chart("bars", "New, changed and removed records by run", [each.started_at for each in ended], series)
