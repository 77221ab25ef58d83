"""poll: waits for a batch job in the triggerer, without a worker, and cancels it only when a person ends the wait.

The task starts from its trigger and ends inside it (tried on Airflow 3.3.2: `start_from_trigger`, with one scalar
template a trigger argument).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NoReturn, cast

import msgspec
from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RemoteError, RetriableError
from opensearch_batch.core.job import BAD_ENDS, End, JobRecord, Ledger, bad_end
from opensearch_batch.core.watch import Sighting, Watch
from opensearch_batch.hooks import AWS_CONN_ID, OPENSEARCH_CONN_ID, OpenSearchMLHook, objects
from opensearch_batch.providers import provider_of
from opensearch_batch.services import service
from opensearch_batch.services.base import Provider, explain

if TYPE_CHECKING:
    from pydantic import JsonValue

TRIGGER = "opensearch_batch.poll.MLTaskTrigger"
# Airflow calls on_kill for a clear too; only these states mean that a person ended the wait.
ENDED_BY_A_PERSON = frozenset({"failed", "success", "skipped", "removed", "upstream_failed"})


class Polled(msgspec.Struct, frozen=True):
    """How a job ended: what `poll` returns.

    `outputs` are the locations of a completed job's rows, `counts` what the service itself counted, if it does;
    `task_id` is null for a job that ML Commons does not know.
    """

    task_id: str | None
    state: str
    outputs: list[str]
    reason: str = ""
    counts: dict[str, int] = {}


def polled(value: Any) -> Polled:  # noqa: ANN401 - an XCom
    """Read the XCom of `poll`; one that a trigger pushed arrives JSON-encoded once more (Airflow 3.3.2).

    Raises:
        ConfigError: there is none, because somebody marked `poll` success, which cancels its job.
    """
    if value is None:
        raise ConfigError("poll left no result, because it was marked success by hand; clear batch_predict")
    return msgspec.convert(json.loads(value) if isinstance(value, str) else value, Polled)


class OpenSearchMLTaskSensor(BaseSensorOperator):
    """Wait for the batch job that `batch_predict` submitted; deferrable always, no worker while waiting.

    Returns ``{task_id, state, outputs}``. Fails when the job ends badly, and says how to pay for another. Marking the
    task failed or success, or the run's timeout, cancels the job; clearing it reattaches to the running job.

    Args:
        batch_predict: the task id of the stage before, whose XCom (of the same map index) names the job.
        service: the AI service.
        poll_every_s: first interval; it grows to a tenth of the job's age.
        poll_at_most_s: longest interval.
        deadline_s: cancels a job that takes longer, counted from its submission.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage.
        ai_conn_id: the AI service's key, where that is not the AWS connection; its usual connection if None.
    """

    template_fields = ("job", "ml_task_id", "service")
    start_from_trigger = True
    ui_color = "#f3e8fd"

    def __init__(
        self,
        *,
        service: str,
        batch_predict: str = "batch_predict",
        poll_every_s: float = 30.0,
        poll_at_most_s: float = 300.0,
        deadline_s: float | None = None,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        ai_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        # A TaskFailedEvent with retries left loses its XCom and polls an ended job again; the trigger retries itself.
        super().__init__(**{**kwargs, "retries": 0})
        self.service = service
        self.batch_predict = batch_predict
        submitted = f"ti.xcom_pull(task_ids='{batch_predict}', map_indexes=ti.map_index)"
        self.job = f"{{{{ {submitted}['job'] }}}}"
        # A job that only the service knows has none.
        self.ml_task_id = f"{{{{ {submitted}['task_id'] or '' }}}}"
        self._watch = {
            "poll_every_s": poll_every_s,
            "poll_at_most_s": poll_at_most_s,
            "deadline_s": deadline_s,
            "opensearch_conn_id": opensearch_conn_id,
            "aws_conn_id": aws_conn_id,
            "ai_conn_id": ai_conn_id,
        }
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=TRIGGER,
            trigger_kwargs={"job": self.job, "ml_task_id": self.ml_task_id, "service": service, **self._watch},
            next_method="execute_complete",
        )

    def execute(self, context: Any) -> NoReturn:  # noqa: ARG002, ANN401 - Airflow's signature
        """Defer at once; only reached where a task cannot start from its trigger, such as ``dag.test``."""
        self.defer(
            trigger=MLTaskTrigger(job=self.job, ml_task_id=self.ml_task_id, service=self.service, **self._watch),  # type: ignore[arg-type]
            method_name="execute_complete",
        )

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002, ANN401 - as above
        """Return what the trigger saw; only reached as `execute` is."""
        return event


class MLTaskTrigger(BaseTrigger):
    """Looks at one batch job until it ends, and records the end in the job's record."""

    def __init__(
        self,
        *,
        job: str,
        ml_task_id: str,
        service: str,
        poll_every_s: float,
        poll_at_most_s: float,
        deadline_s: float | None,
        opensearch_conn_id: str,
        aws_conn_id: str,
        ai_conn_id: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's own
        self.job = job
        self.ml_task_id = ml_task_id
        self.service = service
        self.poll_every_s = poll_every_s
        self.poll_at_most_s = poll_at_most_s
        self.deadline_s = deadline_s
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id
        self.ai_conn_id = ai_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        watch = ("poll_every_s", "poll_at_most_s", "deadline_s", "opensearch_conn_id", "aws_conn_id", "ai_conn_id")
        return TRIGGER, {name: getattr(self, name) for name in ("job", "ml_task_id", "service", *watch)}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end; yield success or failure of the task itself."""
        try:
            record = await asyncio.to_thread(self._record)
            record = record if record.end else await self._until_ended(record)
            end = cast("End", record.end)
        except BatchError as error:
            self.log.error("%s", error)  # noqa: TRY400 - the message is the whole story; a trace would bury it
            yield TaskFailedEvent()
            return
        result: dict[str, JsonValue] = {"return_value": self._result(record, end)}
        if end.state in BAD_ENDS:
            self.log.error(bad_end(record))
            yield TaskFailedEvent(xcoms=result)
        else:
            self.log.info("job %s (task %s) ended %s", record.name, record.task_id, end.state)
            yield TaskSuccessEvent(xcoms=result)

    async def on_kill(self) -> None:
        """Cancel the job when a person ended the wait; after a clear leave it to the next attempt, which reattaches.

        One thread does all of it: the triggerer (3.3.2) cancels this coroutine again a second later, and a thread
        runs on.
        """
        await asyncio.to_thread(self._ended_from_outside)

    def _ended_from_outside(self) -> None:
        state = self._state_of_task()
        if state not in ENDED_BY_A_PERSON:
            self.log.info("the task was cleared (it is %s now): the job runs on", state)
            return
        record = self._record()
        if self.ml_task_id and record.task_id != self.ml_task_id:
            # A run with force submitted another generation, which others wait for; only ours is ended.
            OpenSearchMLHook(self.opensearch_conn_id).ml.cancel(self.ml_task_id)
        elif record.end is None:
            end = End("CANCELLED", time.time(), f"cancelled, because the task was marked {state}")
            self._conclude(record, end, cancel=True)
            self.log.info("job %s (task %s) %s", record.name, record.task_id, end.reason)

    async def _until_ended(self, record: JobRecord) -> JobRecord:
        """Look, decide, pause, until the decision is an end; return the record with it."""
        deadline_at = None if self.deadline_s is None else record.intended_at + self.deadline_s
        watch = Watch(record.intended_at, self.poll_every_s, self.poll_at_most_s, deadline_at)
        self.log.info("waiting for job %s (task %s), first every %g s", record.name, record.task_id, self.poll_every_s)
        while True:
            step: Watch | End | None
            try:
                remote_job = await asyncio.to_thread(self._look, record)
                record = msgspec.structs.replace(record, remote_job=remote_job)
                seen = service(self.service).sighting(remote_job)
                step = watch.on_sighting(seen, now=time.time())
            except NotFound as error:
                step = End("LOST", time.time(), f"nobody knows it any more ({error})")
                seen = Sighting("LOST")
            except RetriableError as error:
                self.log.warning("%s", error)
                step = watch.on_error(now=time.time())
                if step is None:
                    raise RetriableError(f"{error}; clear poll to go on waiting for the job") from error
            if isinstance(step, End):
                await asyncio.to_thread(self._conclude, record, step, cancel=seen.state == "RUNNING")
                return msgspec.structs.replace(record, end=step)
            watch = step
            await asyncio.sleep(watch.pause_s(now=time.time()))

    def _record(self) -> JobRecord:

        found = Ledger(objects(self.aws_conn_id), self.job).load()
        if found is None or found[0].status == "intent":
            raise ConfigError(f"{self.job}: no submitted job is recorded here; clear batch_predict")
        return found[0]

    def _look(self, record: JobRecord) -> dict[str, Any]:
        """Ask for the job: through ML Commons, or the service itself where ML Commons has no task of it."""
        if record.task_id is None:
            return self._provider().look(record)
        try:
            task = OpenSearchMLHook(self.opensearch_conn_id).ml.task(record.task_id)
        except RemoteError as error:
            raise explain(service(self.service), error) from error
        return {**record.remote_job, **(task.get("remote_job") or {})}

    def _conclude(self, record: JobRecord, end: End, *, cancel: bool) -> None:

        if cancel and record.task_id is None:
            self._provider().stop(record)
        elif cancel:
            OpenSearchMLHook(self.opensearch_conn_id).ml.cancel(str(record.task_id))
        try:
            Ledger(objects(self.aws_conn_id), self.job).end(record.generation, end, record.remote_job)
        except RetriableError as error:
            self.log.warning("the end is not recorded, the next run will ask the service again: %s", error)

    def _result(self, record: JobRecord, end: End) -> dict[str, JsonValue]:

        outputs = service(self.service).outputs(record, record.remote_job) if end.state == "COMPLETED" else []
        counts = {name: int(count) for name, count in (record.remote_job.get("request_counts") or {}).items()}
        polled = Polled(record.task_id, end.state, outputs, end.reason, counts)
        ended: dict[str, JsonValue] = msgspec.to_builtins(polled)
        return ended

    def _provider(self) -> Provider:
        return provider_of(self.service, aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id)

    def _state_of_task(self) -> str | None:
        """Ask Airflow what became of the task this trigger waited for."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti: Any = self.task_instance
        runs = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id]
        )
        states = [state for tasks in runs.values() for state in tasks.values()]
        return states[0] if states else None
