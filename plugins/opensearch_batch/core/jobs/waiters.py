"""A job that others wait for is not cancelled: who waits for a job stands beside its record.

Each wait has an object below ``<job folder>/waiters/``. It is written when the wait begins and refreshed while it
goes on, so one that nobody refreshes any more is of a process that died. Who ends a wait removes the own object first
and looks for others then; so of two that end at the same time at least one sees that nobody is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from opensearch_batch.core.storage.json_document import read_all, save
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest

REFRESH_S = 600.0
# Twice the longest pause between two refreshes, and some minutes.
SEEN_WITHIN_S = 1800.0


class Waiter(msgspec.Struct, frozen=True):
    """Who waits for which task of a job (None for a job that only its service knows), and when that was last sure.

    One of a run that is about to wait is the same as one that does. `seen_at` is in epoch seconds.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    ml_task_id: str | None
    seen_at: float = 0.0

    @property
    def who(self) -> tuple[str, str, int]:
        """What tells one from another: the run, and the shard in it."""
        return self.dag_id, self.run_id, self.map_index

    def __str__(self) -> str:
        """Name it as Airflow does."""
        place = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id} {self.run_id} {self.task_id}{place}"


def others(waiters: Iterable[Waiter], mine: Waiter, *, now: float) -> list[Waiter]:
    """Return who else was lately seen to wait for the same task of the job."""
    return [
        waiter
        for waiter in waiters
        if waiter.who != mine.who and waiter.ml_task_id == mine.ml_task_id and now - waiter.seen_at <= SEEN_WITHIN_S
    ]


def pause_s(jitter: float) -> float:
    """Return how long to wait before the next refresh: ten minutes, a quarter more or less (`jitter`, from 0 to 1)."""
    return REFRESH_S * (0.75 + 0.5 * jitter)


class Waiters:
    """The waiters of one job.

    Args:
        objects: where they lie.
        folder: the job's.
        clock: epoch seconds.
    """

    def __init__(self, objects: Objects, folder: str, *, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._folder = f"{folder.rstrip('/')}/waiters"
        self._clock = clock

    def see(self, waiter: Waiter) -> None:
        """Record that a waiter is there now."""
        save(self._objects, self._uri(waiter), msgspec.structs.replace(waiter, seen_at=self._clock()))

    def leave(self, waiter: Waiter) -> None:
        """Record that a waiter is gone; nothing happens where it was not there."""
        self._objects.delete(self._uri(waiter))

    def left(self, waiter: Waiter) -> list[Waiter]:
        """Remove a waiter; return who else waits."""
        self.leave(waiter)
        waiters = (other for _, other in read_all(self._objects, f"{self._folder}/", Waiter))
        return others(waiters, waiter, now=self._clock())

    def _uri(self, waiter: Waiter) -> str:
        return f"{self._folder}/{digest(*map(str, waiter.who))}.json"
