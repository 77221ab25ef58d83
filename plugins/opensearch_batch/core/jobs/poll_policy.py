"""How a wait for a job goes on: decided on plain values, so that the trigger only does I/O and time is injected."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.types.job import End, State

PATIENCE_S = 600.0
# Jobs that were submitted together are not looked at together for ever.
JITTER = 0.1


class JobStatus(msgspec.Struct, frozen=True):
    """What one look at a job showed."""

    state: State
    reason: str = ""


class PollPolicy(msgspec.Struct, frozen=True):
    """Decides how a wait goes on; pure, so the trigger only does I/O.

    Args:
        started_at: epoch seconds.
        poll_every_s: the first interval; it stretches with the job's age, to at most `poll_at_most_s`.
        deadline_at: epoch seconds after which the wait fails, None for none.
        patience_s: how long looks may fail in a row, so that a restart of the cluster is no end.
        failing_since: epoch seconds of the first of the looks that failed in a row, None when the last one worked.
    """

    started_at: float
    poll_every_s: float = 30.0
    poll_at_most_s: float = 300.0
    deadline_at: float | None = None
    patience_s: float = PATIENCE_S
    failing_since: float | None = None

    def on_status(self, status: JobStatus, *, now: float) -> PollPolicy | End:
        """Go on watching, or end: an end seen is an end, also after the deadline."""
        if status.state != "RUNNING":
            return End(status.state, now, status.reason)
        if self.deadline_at is not None and now >= self.deadline_at:
            return End("EXPIRED", now, "the deadline passed while the job was still running")
        return msgspec.structs.replace(self, failing_since=None)

    def on_error(self, *, now: float) -> PollPolicy | None:
        """Go on after a look that failed, or None when they fail for too long."""
        since = self.failing_since if self.failing_since is not None else now
        # Also after the deadline: who cannot look cannot cancel.
        if now - since >= self.patience_s:
            return None
        return msgspec.structs.replace(self, failing_since=since)

    def pause_s(self, *, now: float) -> float:
        """Return how long to wait before the next look: a tenth of the job's age, within the limits."""
        return min(self.poll_at_most_s, max(self.poll_every_s, (now - self.started_at) / 10))

    def look_at(self, *, now: float, jitter: float) -> float:
        """Return when to look next: after the pause, up to a tenth of it sooner or later; at the deadline in any case.

        Args:
            now: epoch seconds.
            jitter: a random number from 0 to 1.
        """
        at = now + self.pause_s(now=now) * (1 - JITTER + 2 * JITTER * jitter)
        return at if self.deadline_at is None or self.deadline_at <= now else min(at, self.deadline_at)
