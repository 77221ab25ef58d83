"""Triggers of `repair`: one ends the task if no record needs it; the other waits for its job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSkippedEvent, TriggerEvent

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.storage.layout import unanswered_beside
from opensearch_batch.hooks.file_conn_ids import accept_conn_ids
from opensearch_batch.hooks.job_handle import shared_object_storage
from opensearch_batch.triggers.ml_task import MLTaskTrigger

UNANSWERED_TRIGGER = "opensearch_batch.triggers.repair.UnansweredTrigger"
REPAIR_TRIGGER = "opensearch_batch.triggers.repair.RepairTrigger"


class UnansweredTrigger(BaseTrigger):
    """Ends the task as skipped if each record has its prediction; otherwise a worker continues it.

    `manifest` is empty if `prepare` found nothing to do. Airflow starts this task even then if an earlier attempt of
    the run had shards, because it removes their mapped tasks instead of skipping them.
    """

    def __init__(self, *, manifest: str, aws_conn_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # untyped in Airflow
        self.manifest = manifest
        self.aws_conn_id = aws_conn_id
        accept_conn_ids(aws_conn_id)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return UNANSWERED_TRIGGER, {"manifest": self.manifest, "aws_conn_id": self.aws_conn_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look for files of unanswered records."""
        if await asyncio.to_thread(self._may_need_repair):
            yield TriggerEvent({})  # type: ignore[no-untyped-call] # untyped in Airflow
        else:
            self.log.info("every record has its prediction")
            yield TaskSkippedEvent()

    def _may_need_repair(self) -> bool:
        """Return whether there are such files; after an error too, because the task itself reports it and retries."""
        if not self.manifest:
            return False
        try:
            objects = shared_object_storage(self.aws_conn_id)
            return next(iter(objects.list(unanswered_beside(self.manifest))), None) is not None
        except BatchError as error:
            self.log.warning("%s", error)
            return True


class RepairTrigger(MLTaskTrigger):
    """Waits for a job as `poll` does, then returns its task to a worker."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return REPAIR_TRIGGER, super().serialize()[1]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end, which is stored in the job's record; the event says whether the wait was abandoned."""
        async for event in super().run():
            # A failure without an XCom is one of the wait, not of the job: for example, the cluster did not respond.
            given_up = isinstance(event, TaskFailedEvent) and not event.xcoms
            yield TriggerEvent({"given_up": given_up})  # type: ignore[no-untyped-call] # untyped in Airflow
            return
