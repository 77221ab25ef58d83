"""Triggers that wait for batch jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec
from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.types.job import BAD_ENDS
from opensearch_batch.hooks.file_conn_ids import accept_conn_ids
from opensearch_batch.triggers.job_wait import JobWait, PollSettings, SubmittedJob

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol
    from pydantic import JsonValue

TRIGGER = "opensearch_batch.triggers.ml_task.MLTaskTrigger"
SHARED_ARGUMENTS = PollSettings.__struct_fields__
# Airflow calls on_kill for a clear too; only these states mean that a user ended the wait.
ENDED_BY_USER = frozenset({"failed", "success", "skipped", "removed"})


class JobsTrigger(BaseTrigger):
    """Base of the triggers that wait for jobs. `jobs` are `SubmittedJob`, or the JSON to which Airflow renders them."""

    def __init__(self, *, jobs: Sequence[Mapping[str, Any]] | str, **shared: Any) -> None:  # noqa: ANN401 - the fields of PollSettings
        super().__init__()  # type: ignore[no-untyped-call] # untyped in Airflow
        # Airflow renders the attributes whose names are template fields of the operator.
        self.jobs = jobs
        self.service = str(shared["service"])
        self._settings = PollSettings(**shared)
        accept_conn_ids(self._settings.opensearch_conn_id, self._settings.aws_conn_id, self._settings.ai_conn_id)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return TRIGGER, {"jobs": self.jobs, **msgspec.structs.asdict(self.settings)}

    @property
    def settings(self) -> PollSettings:
        """What the waits share."""
        return msgspec.structs.replace(self._settings, service=self.service)

    async def on_kill(self) -> None:
        """Cancel the jobs if a user ended the wait, except those for which other runs wait.

        After a clear, the jobs continue and the next attempt reattaches to them. All work runs in one thread, because
        Airflow's triggerer (3.3.2) cancels this coroutine again after a second, which does not interrupt a thread.
        """
        await asyncio.to_thread(self._cancel_unless_awaited)

    def _cancel_unless_awaited(self) -> None:
        state = self._state_of_task()
        if state not in ENDED_BY_USER:
            self.log.info("the task was cleared (its state is %s): its jobs continue", state)
            return
        for wait in self._waits():
            try:
                wait.cancel_unless_awaited(state)
            except BatchError as error:
                # The others are cancelled all the same.
                self.log.error("%s", error)  # noqa: TRY400 - the message is complete; a traceback would bury it

    def _waits(self) -> list[JobWait]:
        jobs = self.jobs
        submitted = (
            msgspec.json.decode(jobs, type=list[SubmittedJob])
            if isinstance(jobs, str)
            else msgspec.convert(jobs, list[SubmittedJob])
        )
        ti = cast("RuntimeTaskInstanceProtocol | None", self.task_instance)
        return [JobWait(job, self.settings, ti=ti, log=self.log) for job in submitted]

    def _state_of_task(self) -> str | None:
        """Return the state of this trigger's task."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti = cast("RuntimeTaskInstanceProtocol", self.task_instance)
        runs = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id]
        )
        states = [state for tasks in runs.values() for state in tasks.values()]
        return states[0] if states else None


class MLTaskTrigger(JobsTrigger):
    """Polls jobs until all have ended, and records their ends; see `OpenSearchMLTaskSensor`."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the ends; yield the event with which Airflow marks the task as success or failed."""
        results = await asyncio.gather(*(wait.run() for wait in self._waits()))
        if any(result is None for result in results):
            yield TaskFailedEvent()
            return
        xcoms: dict[str, JsonValue] = {"return_value": msgspec.to_builtins(results)}
        is_bad = any(result is not None and result.state in BAD_ENDS for result in results)
        yield TaskFailedEvent(xcoms=xcoms) if is_bad else TaskSuccessEvent(xcoms=xcoms)
