"""Decides how a wait for a batch job continues. Pure: the trigger does the I/O and passes the time."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from opensearch_batch.core.types.job import End, State

PATIENCE_S = 600.0
# Spreads the polls of jobs that were submitted together.
JITTER = 0.1


class JobStatus(msgspec.Struct, frozen=True):
    """The state of a job that one poll returned, and the service's reason for it."""

    state: State
    reason: str = ""


class PollPolicy(msgspec.Struct, frozen=True):
    """Decides after each poll whether the wait continues, and when the next poll is due. Times are epoch seconds.

    The interval grows from `poll_every_s` with the job's age, to at most `poll_at_most_s`. Polls may fail in a row for
    `patience_s`, so that a restart of the cluster does not end the wait; `failing_since` is the first of these
    failures.
    """

    started_at: float
    poll_every_s: float = 30.0
    poll_at_most_s: float = 300.0
    deadline_at: float | None = None
    patience_s: float = PATIENCE_S
    failing_since: float | None = None

    def on_status(self, status: JobStatus, *, now: float) -> Decision:
        """Return how the wait continues, or how the job ended; an end that is found after the deadline counts too."""
        if status.state != "RUNNING":
            return End(status.state, now, status.reason)
        if self.deadline_at is not None and now >= self.deadline_at:
            return End("EXPIRED", now, "the deadline passed while the job was still running")
        return msgspec.structs.replace(self, failing_since=None)

    def on_error(self, *, now: float) -> PollPolicy | None:
        """Return how the wait continues after a poll that failed, None when polls have failed for `patience_s`."""
        since = self.failing_since if self.failing_since is not None else now
        # This holds after the deadline too: while polls fail, the job cannot be cancelled either.
        if now - since >= self.patience_s:
            return None
        return msgspec.structs.replace(self, failing_since=since)

    def pause_s(self, *, now: float) -> float:
        """Return the interval until the next poll: a tenth of the job's age, within the limits."""
        return min(self.poll_at_most_s, max(self.poll_every_s, (now - self.started_at) / 10))

    def next_poll_at(self, *, now: float, jitter: float) -> float:
        """Return when the next poll is due, but at the deadline; `jitter` (0 to 1) varies the interval by a tenth."""
        at = now + self.pause_s(now=now) * (1 - JITTER + 2 * JITTER * jitter)
        return at if self.deadline_at is None or self.deadline_at <= now else min(at, self.deadline_at)


# The wait continues with this policy, or the job has ended.
Decision: TypeAlias = PollPolicy | End
