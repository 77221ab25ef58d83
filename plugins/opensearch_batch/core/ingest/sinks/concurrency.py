"""Limits the number of bodies in flight: raises it while throughput increases, halves it when the index is busy."""

from __future__ import annotations

FIRST_LIMIT = 2
# The minimum speed-up that justifies a higher limit; merges and garbage collection cause smaller differences.
GAIN = 1.08
BODIES_PER_SAMPLE = 6
# Number of samples after a decrease before a higher limit is tried again.
SAMPLES_BEFORE_RETRY = 12


class ConcurrencyLimit:
    """Finds the best number of bodies in flight, up to a maximum, by trying. The caller passes the time."""

    def __init__(self, maximum: int) -> None:
        self._maximum = max(1, maximum)
        self.limit = min(FIRST_LIMIT, self._maximum)
        self._before: float | None = None
        self._is_trial = False
        self._samples_to_wait = 0
        self._started: float | None = None
        self._bytes = self._bodies = 0

    def on_busy(self) -> None:
        """Halve the limit: the index refused documents because it is busy."""
        self.limit = max(1, self.limit // 2)
        self._before, self._is_trial, self._samples_to_wait = None, False, SAMPLES_BEFORE_RETRY
        self._started = None

    def on_done(self, size_bytes: int, now_s: float) -> None:
        """Count a body that the index accepted."""
        if self._started is None:
            self._started, self._bytes, self._bodies = now_s, 0, 0
            return
        self._bytes += size_bytes
        self._bodies += 1
        if self._bodies >= BODIES_PER_SAMPLE and now_s > self._started:
            self._decide(self._bytes / (now_s - self._started))
            self._started = None

    def _decide(self, speed: float) -> None:
        before, self._before = self._before, speed
        if self._is_trial:
            self._is_trial = False
            if before is not None and speed < before * GAIN:
                self.limit -= 1
                self._before, self._samples_to_wait = before, SAMPLES_BEFORE_RETRY
                return
        if self._samples_to_wait > 0:
            self._samples_to_wait -= 1
        elif self.limit < self._maximum:
            self.limit += 1
            self._is_trial = True
