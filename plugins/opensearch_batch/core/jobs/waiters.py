"""The waiters of a job: the runs that wait for it. A run that ends its wait cancels the job if no other run waits.

Each waiter is an object below ``<job folder>/waiters/``, written when the wait begins and refreshed while it continues;
an object that is no longer refreshed belongs to a process that died. A run first removes its own object and then lists
the others, so if two runs end their waits at the same time, at least one of them finds no other waiter and cancels the
job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from opensearch_batch.core.storage.json_document import read_all, save
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest

REFRESH_S = 600.0
# Twice the longest pause between two refreshes, plus five minutes.
EXPIRES_AFTER_S = 1800.0


class Waiter(msgspec.Struct, frozen=True):
    """A run that waits for a job, or is about to; `ml_task_id` is None if ML Commons does not know the job."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    ml_task_id: str | None
    refreshed_at: float = 0.0

    @property
    def key(self) -> tuple[str, str, int]:
        """The run and the shard in it, which identify a waiter."""
        return self.dag_id, self.run_id, self.map_index

    def __str__(self) -> str:
        """Return the run and task in Airflow's notation."""
        mapped = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id} {self.run_id} {self.task_id}{mapped}"


def others(waiters: Iterable[Waiter], mine: Waiter, *, now: float) -> list[Waiter]:
    """Return the other waiters for the same ML Commons task that have not expired."""
    return [
        waiter
        for waiter in waiters
        if waiter.key != mine.key
        and waiter.ml_task_id == mine.ml_task_id
        and now - waiter.refreshed_at <= EXPIRES_AFTER_S
    ]


def pause_s(jitter: float) -> float:
    """Return how long to wait before the next refresh: ten minutes, plus or minus a quarter (`jitter`, from 0 to 1)."""
    return REFRESH_S * (0.75 + 0.5 * jitter)


class Waiters:
    """The waiters of the job whose record is in a folder."""

    def __init__(self, objects: Objects, folder: str, *, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._folder = f"{folder.rstrip('/')}/waiters"
        self._clock = clock

    def register(self, waiter: Waiter) -> None:
        """Register or refresh a waiter."""
        save(self._objects, self._uri(waiter), msgspec.structs.replace(waiter, refreshed_at=self._clock()))

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter, if it is registered."""
        self._objects.delete(self._uri(waiter))

    def remove_and_list_remaining(self, waiter: Waiter) -> list[Waiter]:
        """Remove a waiter; return the others that wait for the same ML Commons task."""
        self.remove(waiter)
        waiters = (other for _, other in read_all(self._objects, f"{self._folder}/", Waiter))
        return others(waiters, waiter, now=self._clock())

    def is_awaited(self) -> bool:
        """Return whether any run waits for the job."""
        waiters = (waiter for _, waiter in read_all(self._objects, f"{self._folder}/", Waiter))
        return any(self._clock() - waiter.refreshed_at <= EXPIRES_AFTER_S for waiter in waiters)

    def _uri(self, waiter: Waiter) -> str:
        return f"{self._folder}/{digest(*map(str, waiter.key))}.json"
