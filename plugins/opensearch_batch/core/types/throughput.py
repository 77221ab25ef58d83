"""Documents and requests of an ingest over time: a bounded number of intervals, which get wider as time passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import msgspec

# The maximum number of intervals of an ingest (about 60 bytes each in its progress); beyond it, their width is doubled.
MAX_INTERVALS = 60
# The period over which the rate of a run in progress is computed.
RATE_S = 60.0


class Interval(msgspec.Struct, frozen=True, array_like=True):
    """Throughput of the interval that starts at `start_s` (epoch seconds).

    `documents` is the number of documents, and of rows that become none, that got a verdict. The `requests` took
    `request_s` seconds together, the slowest one `slowest_s`.
    """

    start_s: float
    documents: int = 0
    requests: int = 0
    request_s: float = 0.0
    slowest_s: float = 0.0

    @property
    def latency_s(self) -> float:
        """The mean time of a request; 0 without requests."""
        return self.request_s / self.requests if self.requests else 0.0


class Throughput(msgspec.Struct, frozen=True):
    """Intervals of `width_s` seconds, a power of two, in order; those in which nothing happened are left out.

    Intervals start at multiples of their width, so those of several ingests can be added.
    """

    width_s: float = 1.0
    intervals: list[Interval] = []

    @classmethod
    def total(cls, items: Iterable[Throughput], *, at_most: int = MAX_INTERVALS) -> Self:
        """Add up several; intervals get wider until there are at most `at_most`."""
        items = list(items)
        width_s = max((item.width_s for item in items), default=1.0)
        intervals = _joined((each for item in items for each in item.intervals), width_s)
        while len(intervals) > at_most:
            width_s *= 2
            intervals = _joined(intervals, width_s)
        return cls(width_s, intervals)

    def plus(self, interval: Interval) -> Throughput:
        """Return this with what happened from `interval.start_s` on."""
        return Throughput.total([self, Throughput(intervals=[interval])])

    def documents_per_s(self, *, last_s: float | None = None) -> float:
        """Return the rate of the last seconds before the last verdict, or of all time; idle time between counts."""
        if not self.intervals:
            return 0.0
        end_s = self.intervals[-1].start_s + self.width_s
        used = [each for each in self.intervals if last_s is None or each.start_s + self.width_s > end_s - last_s]
        return sum(each.documents for each in used) / (end_s - used[0].start_s)


def _joined(intervals: Iterable[Interval], width_s: float) -> list[Interval]:
    """Return intervals of this width."""
    by_start = dict[float, list[Interval]]()
    for each in intervals:
        by_start.setdefault(each.start_s // width_s * width_s, []).append(each)
    return [
        Interval(
            start_s,
            sum(each.documents for each in by_start[start_s]),
            sum(each.requests for each in by_start[start_s]),
            sum(each.request_s for each in by_start[start_s]),
            max(each.slowest_s for each in by_start[start_s]),
        )
        for start_s in sorted(by_start)
    ]
