"""Documents and requests of an ingest over time: a bounded number of intervals, which get wider as time passes."""

from __future__ import annotations

import msgspec

# An ingest keeps so many intervals, each of them about 60 bytes in its progress; then intervals are joined in pairs.
MAX_INTERVALS = 60


class Interval(msgspec.Struct, frozen=True, array_like=True):
    """What got a verdict from `start_s` (epoch seconds) on, for the width of the intervals.

    `documents` got a verdict. The `requests` took `request_s` seconds together, the slowest one `slowest_s`.
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


class Throughput(msgspec.Struct, frozen=True, omit_defaults=True):
    """Intervals of `width_s` seconds, a power of two, in order; those in which nothing happened are left out.

    Intervals start at multiples of their width, so those of several ingests can be added.
    """

    width_s: float = 1.0
    intervals: list[Interval] = []
