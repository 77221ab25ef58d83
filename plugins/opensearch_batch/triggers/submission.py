"""Trigger that waits until a job may be submitted: it acquires a slot, or waits for a number of seconds."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from opensearch_batch.core.errors import BatchError, RetriableError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.poll_policy import PATIENCE_S
from opensearch_batch.core.jobs.slots import Slot, Slots
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.hooks.file_conn_ids import accept
from opensearch_batch.hooks.job_handle import shared_object_storage

TRIGGER = "opensearch_batch.triggers.submission.SubmissionTrigger"
SLOT_INTERVAL_S = 10.0
# If several tasks of a triggerer wait for the same slots, one polls the slots and the others queue.
_queues: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)


def job_slots(store: Objects, folder: str, max_slots: int) -> Slots:
    """Return the slots in a folder; a job holds its slot from before its submission until its record has an end."""

    def is_in_flight(slot: Slot) -> bool | None:
        record = JobRecords(store, slot.holder).read()
        if record is None or record.status == "intent":
            return None
        end = record.end
        # A job that ended before it acquired the slot is about to be submitted again.
        return True if end is None else None if end.at < slot.at else False

    return Slots(store, folder, max_slots=max_slots, is_in_flight=is_in_flight, clock=time.time)


class SubmissionTrigger(BaseTrigger):
    """Acquires a slot as soon as one is free, or waits for a number of seconds.

    The event carries `since`: epoch seconds at which the service first throttled.

    Args:
        holder: the folder of the job that needs a slot.
        slots: the folder of the slots; None to wait `pause_s` seconds.
        max_slots: how many there are.
        pause_s: seconds to wait.
        since: epoch seconds at which the service first throttled.
        reason: why the task waits, for the log.
        aws_conn_id: the object storage.
    """

    def __init__(
        self,
        *,
        holder: str,
        slots: str | None = None,
        max_slots: int = 0,
        pause_s: float = 0.0,
        since: float | None = None,
        reason: str = "",
        aws_conn_id: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's own
        self.holder = holder
        self.slots = slots
        self.max_slots = max_slots
        self.pause_s = pause_s
        self.since = since
        self.reason = reason
        self.aws_conn_id = aws_conn_id
        accept(aws_conn_id)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        names = ("holder", "slots", "max_slots", "pause_s", "since", "reason", "aws_conn_id")
        return TRIGGER, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield the event."""
        self.log.info("not yet submitted: %s", self.reason)
        if self.slots is None:
            await asyncio.sleep(self.pause_s)
        else:
            async with _queues[self.slots]:
                await self._take_slot()
        yield TriggerEvent({"since": self.since})  # type: ignore[no-untyped-call] # Airflow's own

    async def _take_slot(self) -> None:
        """Wait until a slot is acquired, or until an error is final or lasts too long; the task then reports it."""
        failing_since = None
        while True:
            try:
                if await asyncio.to_thread(self._take):
                    return
                failing_since = None
            except BatchError as error:
                self.log.warning("%s", error)
                failing_since = failing_since or time.monotonic()
                if not isinstance(error, RetriableError) or time.monotonic() >= failing_since + PATIENCE_S:
                    return
            await asyncio.sleep(SLOT_INTERVAL_S)

    def _take(self) -> bool:
        store = shared_object_storage(self.aws_conn_id)
        return job_slots(store, str(self.slots), self.max_slots).acquire(self.holder)
