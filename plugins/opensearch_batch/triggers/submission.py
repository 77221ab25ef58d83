"""Trigger that waits until a job may be submitted: it acquires a slot, or waits for a number of seconds.

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
    """Acquires one of the slots for the job `holder` as soon as one is free; without `slots`, waits for `pause_s`.

    The event carries `since`: epoch seconds at which the service first throttled. The wait ends when no job acquired a
    slot for `stalled_after_s`; the task then fails. `jobs` are those that the task has submitted.
    """

    def __init__(
        self,
        *,
        jobs: Sequence[Mapping[str, Any]] | str,
        holder: str,
        slots: str | None = None,
        max_slots: int = 0,
        pause_s: float = 0.0,
        since: float | None = None,
        stalled_after_s: float = DEADLINE_S,
        reason: str = "",
        **shared: Any,  # noqa: ANN401 - the fields of PollSettings
    ) -> None:
        super().__init__(jobs=jobs, **shared)
        self.holder = holder
        self.slots = slots
        self.max_slots = max_slots
        self.pause_s = pause_s
        self.since = since
        self.stalled_after_s = stalled_after_s
        self.reason = reason
        self._poll_holders_at = 0.0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("holder", "slots", "max_slots", "pause_s", "since", "stalled_after_s", "reason")
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
                    await self._acquire_slot()
        finally:
            for wait in waits:
                wait.cancel()
        yield TriggerEvent({"since": self.since})  # type: ignore[no-untyped-call] # untyped in Airflow

    async def _acquire_slot(self) -> None:
        """Wait for a slot; return early if the slots are stalled, or after an error that the task then reports."""
        failing_since = None
        while True:
            try:
                if await asyncio.to_thread(self._try_acquire):
                    return
                failing_since = None
            except BatchError as error:
                self.log.warning("%s", error)
                failing_since = failing_since or time.monotonic()
                if not isinstance(error, RetriableError) or time.monotonic() >= failing_since + PATIENCE_S:
                    return
            await asyncio.sleep(SLOT_INTERVAL_S)

    def _try_acquire(self) -> bool:
        """Try to acquire a slot; return whether the wait is over."""
        slots = job_slots(shared_object_storage(self.settings.aws_conn_id), str(self.slots), self.max_slots)
        if slots.acquire(self.holder):
            return True
        if time.monotonic() < self._poll_holders_at:
            return False
        self._poll_holders_at = time.monotonic() + HOLDERS_INTERVAL_S
        conclude_unattended(slots, {name: getattr(self.settings, name) for name in HANDLE_ARGUMENTS})
        self.log.info("still waiting: %s", slots.holders())
        return slots.acquire(self.holder) or slots.are_stalled(self.stalled_after_s)
