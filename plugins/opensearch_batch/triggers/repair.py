"""Trigger that waits for a further job of `repair` and returns its task to a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import TaskFailedEvent, TriggerEvent

from opensearch_batch.triggers.ml_task import MLTaskTrigger

TRIGGER = "opensearch_batch.triggers.repair.RepairTrigger"


class RepairTrigger(MLTaskTrigger):
    """Waits for a job as `poll` does, then returns its task to a worker."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return TRIGGER, super().serialize()[1]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end, which is stored in the job's record; the event says whether the wait was abandoned."""
        async for event in super().run():
            # A failure without an XCom is one of the wait, not of the job: for example, the cluster did not respond.
            given_up = isinstance(event, TaskFailedEvent) and not event.xcoms
            yield TriggerEvent({"given_up": given_up})  # type: ignore[no-untyped-call] # Airflow's own
            return
