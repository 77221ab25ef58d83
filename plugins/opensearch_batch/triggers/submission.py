"""Trigger that waits until jobs may be submitted: it acquires slots, or waits for a number of seconds.

Meanwhile it waits for the jobs that its task has submitted before, because no `poll` does yet. Otherwise these would
keep the slots for which their own task waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from airflow.triggers.base import TriggerEvent

from opensearch_batch.core.errors import BatchError, RetriableError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.poll_policy import PATIENCE_S
from opensearch_batch.core.jobs.slots import Slot, Slots
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import DEADLINE_S
from opensearch_batch.hooks.job_handle import HANDLE_ARGUMENTS, conclude_unattended, shared_object_storage
from opensearch_batch.triggers.ml_task import JobsTrigger

TRIGGER = "opensearch_batch.triggers.submission.SubmissionTrigger"
SLOT_INTERVAL_S = 10.0
# How long the trigger waits for more slots after the first one: to start a task takes longer than to submit a job.
GATHER_S = 30.0
# Interval at which the trigger polls the jobs that hold slots, and logs them.
HOLDERS_INTERVAL_S = 600.0
# If several tasks of a triggerer wait for the same slots, one polls the slots and the others queue.
_queues: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)


def job_slots(store: Objects, folder: str, max_slots: int) -> Slots:
    """Return the slots in a folder; a job holds its slot from before its submission until its record has an end."""

    def is_in_flight(slot: Slot) -> bool | None:
        record = JobRecords(store, slot.holder).read()
        if record is None or record.status == "intent":
            return None
        if record.end is None:
            return True
        # A job that ended before it acquired the slot is about to be submitted again.
        return None if record.end.at < slot.at else False

    return Slots(store, folder, max_slots=max_slots, is_in_flight=is_in_flight, clock=time.time)


class SubmissionTrigger(JobsTrigger):
    """Acquires slots for the jobs `holders` as they become free; without `slots`, waits for `pause_s`.

    The wait ends when all of the jobs have a slot, or `GATHER_S` after the first one got one. It also ends when no job
    acquired a slot for `stalled_after_s`; the task then fails. The event carries `since`: epoch seconds at which the
    service first throttled. `jobs` are those that the task has submitted.
    """

    def __init__(
        self,
        *,
        jobs: Sequence[Mapping[str, Any]] | str,
        holders: Sequence[str],
        slots: str | None = None,
        max_slots: int = 0,
        pause_s: float = 0.0,
        since: float | None = None,
        stalled_after_s: float = DEADLINE_S,
        reason: str = "",
        **shared: Any,  # noqa: ANN401 - the fields of PollSettings
    ) -> None:
        super().__init__(jobs=jobs, **shared)
        self.holders = list(holders)
        self.slots = slots
        self.max_slots = max_slots
        self.pause_s = pause_s
        self.since = since
        self.stalled_after_s = stalled_after_s
        self.reason = reason
        self._poll_holders_at = 0.0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("holders", "slots", "max_slots", "pause_s", "since", "stalled_after_s", "reason")
        return TRIGGER, {**super().serialize()[1], **{name: getattr(self, name) for name in names}}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield the event."""
        self.log.info("not yet submitted: %s", self.reason)
        waits = [asyncio.create_task(wait.run()) for wait in self._waits()]
        try:
            if self.slots is None:
                await asyncio.sleep(self.pause_s)
            else:
                async with _queues[self.slots]:
                    await self._acquire_slots()
        finally:
            for wait in waits:
                wait.cancel()
        yield TriggerEvent({"since": self.since})  # type: ignore[no-untyped-call] # untyped in Airflow

    async def _acquire_slots(self) -> None:
        """Wait for slots; return early if the slots are stalled, or after an error that the task then reports."""
        failing_since = gathering_since = None
        while True:
            try:
                acquired, is_stalled = await asyncio.to_thread(self._try_acquire)
                failing_since = None
                gathering_since = gathering_since or (time.monotonic() if acquired else None)
                if is_stalled or acquired == len(self.holders):
                    return
            except BatchError as error:
                self.log.warning("%s", error)
                failing_since = failing_since or time.monotonic()
                if not isinstance(error, RetriableError) or time.monotonic() >= failing_since + PATIENCE_S:
                    return
            if gathering_since is not None and time.monotonic() >= gathering_since + GATHER_S:
                return
            await asyncio.sleep(SLOT_INTERVAL_S)

    def _try_acquire(self) -> tuple[int, bool]:
        """Try to acquire slots; return how many of the jobs have one, and whether the slots are stalled."""
        slots = job_slots(shared_object_storage(self.settings.aws_conn_id), str(self.slots), self.max_slots)
        acquired = len(slots.acquire(*self.holders))
        if acquired or time.monotonic() < self._poll_holders_at:
            return acquired, False
        self._poll_holders_at = time.monotonic() + HOLDERS_INTERVAL_S
        conclude_unattended(slots, {name: getattr(self.settings, name) for name in HANDLE_ARGUMENTS})
        self.log.info("still waiting: %s", slots.holders())
        acquired = len(slots.acquire(*self.holders))
        return acquired, not acquired and slots.are_stalled(self.stalled_after_s)
