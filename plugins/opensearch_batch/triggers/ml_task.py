"""poll: waits for a batch job in the triggerer, without a worker, and cancels it only when a person ends the wait.

The task starts from its trigger and ends inside it (tried on Airflow 3.3.2: `start_from_trigger`, with one scalar
template a trigger argument). All triggers of a process look at a cluster's jobs through one lookout, with one client.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NoReturn, cast
from weakref import WeakKeyDictionary

import msgspec
from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, NotFound, RetriableError
from opensearch_batch.core.jobs.job_records import bad_end
from opensearch_batch.core.jobs.poll_policy import PollPolicy
from opensearch_batch.core.jobs.status_poller import PollRequest, RemoteStatus, StatusPoller
from opensearch_batch.core.jobs.waiters import Waiter, pause_s
from opensearch_batch.core.types.job import BAD_ENDS, End, JobRecord
from opensearch_batch.hooks.job_handle import JobHandle, Polled, names_of, shared_ml, waiter_of, words_or_error
from opensearch_batch.hooks.opensearch import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.services.registry import adapter_of

if TYPE_CHECKING:
    from pydantic import JsonValue

TRIGGER = "opensearch_batch.triggers.ml_task.MLTaskTrigger"
# Airflow calls on_kill for a clear too; only these states mean that a person ended the wait.
ENDED_BY_A_PERSON = frozenset({"failed", "success", "skipped", "removed"})
# A lookout belongs to an event loop; a triggerer has one, `dag.test` one for each trigger.
_lookouts: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, StatusPoller]] = WeakKeyDictionary()


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

    Returns ``{task_id, state, outputs, reason, counts}``. Fails when the job ends badly, and says how to pay for
    another. Marking the task failed or success, or the run's timeout, cancels the job, unless another run waits for
    it; clearing it reattaches to the running job.

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
            record = await self._loaded()
            record = record if record.end else await self._wait(record)
            end = cast("End", record.end)
        except BatchError as error:
            self.log.error("%s", error)  # noqa: TRY400 - the message is the whole story; a trace would bury it
            yield TaskFailedEvent()
            return
        polled = await asyncio.to_thread(self._job().result, record, end)
        result: dict[str, JsonValue] = {"return_value": msgspec.to_builtins(polled)}
        if end.state in BAD_ENDS:
            self.log.error(bad_end(record))
            yield TaskFailedEvent(xcoms=result)
        else:
            self.log.info("job %s (task %s) ended %s", record.name, record.task_id, end.state)
            yield TaskSuccessEvent(xcoms=result)

    async def on_kill(self) -> None:
        """Cancel the job when a person ended the wait, unless others wait for it; after a clear leave it as it is.

        The next attempt then reattaches. One thread does all of it: the triggerer (3.3.2) cancels this coroutine again
        a second later, and a thread runs on.
        """
        await asyncio.to_thread(self._ended_from_outside)

    def _ended_from_outside(self) -> None:
        state = self._state_of_task()
        if state not in ENDED_BY_A_PERSON:
            self.log.info("the task was cleared (it is %s now): the job runs on", state)
            return
        job = self._job()
        record, waiter = job.record(), self._waiter(self.ml_task_id)
        if others := job.left(waiter) if waiter else []:
            self.log.info("job %s runs on, because others wait for it: %s", record.name, names_of(others))
        elif self.ml_task_id and record.task_id != self.ml_task_id:
            # A run with force submitted another submission; only ours is ended.
            job.cancel(self.ml_task_id)
        elif record.end is None:
            end = End("CANCELLED", time.time(), f"cancelled, because the task was marked {state}")
            job.conclude(record, end, cancel=True)
            self.log.info("job %s (task %s) %s", record.name, record.task_id, end.reason)

    async def _loaded(self) -> JobRecord:
        """Return the job's record; a store that is away for a while is waited for."""
        watch = self._watch(time.time())
        while True:
            try:
                return await asyncio.to_thread(self._job().record)
            except RetriableError as error:
                watch = self._bear(watch, error)
            await asyncio.sleep(watch.pause_s(now=time.time()))

    async def _wait(self, record: JobRecord) -> JobRecord:
        """Wait for the end, and let others know that somebody does; return the record with the end."""
        waiter = self._waiter(record.task_id or "")
        seen = asyncio.create_task(self._be_seen(waiter))
        try:
            record = await self._until_ended(record)
        except asyncio.CancelledError:
            # Another triggerer or attempt goes on with it, or a person ended it: then `on_kill` leaves.
            waiter = None
            raise
        finally:
            seen.cancel()
            if waiter:
                await asyncio.to_thread(self._job().leave, waiter)
        return record

    async def _until_ended(self, record: JobRecord) -> JobRecord:
        """Look, decide, pause, until the decision is an end; return the record with it."""
        adapter = adapter_of(self.service)
        watch, look_at = self._watch(record.intended_at), time.time()
        # Nothing is logged here. Airflow logs each wait that begins, and nobody reads while it hands over the next:
        # with two lines a wait, a triggerer (3.3.2) and its supervisor waited for each other after some 280 of them.
        while True:
            found, is_running = await self._look(record, watch, look_at), False
            step: PollPolicy | End
            if isinstance(found, dict):
                record = msgspec.structs.replace(record, remote_job={**record.remote_job, **found})
                status = adapter.job_status(record.remote_job)
                step, is_running = watch.on_status(status, now=time.time()), status.state == "RUNNING"
            elif isinstance(found, NotFound):
                step = End("LOST", time.time(), f"nobody knows it any more ({found})")
            else:
                step = self._bear(watch, found)
            if isinstance(step, End):
                return await self._concluded(record, watch, step, cancel=is_running)
            watch = step
            look_at = watch.look_at(now=time.time(), jitter=random.random())  # noqa: S311 - jitter, no secret

    async def _concluded(self, record: JobRecord, watch: PollPolicy, end: End, *, cancel: bool) -> JobRecord:
        """Record the end, and return the record with it; a job that runs on at its deadline is cancelled first.

        Raises:
            FatalError: the deadline of this wait passed, and others wait for the job with another, or none.
        """
        job, waiter = self._job(), self._waiter(record.task_id or "")
        while True:
            try:
                if cancel and waiter and (others := await asyncio.to_thread(job.left, waiter)):
                    raise FatalError(f"{end.reason}; job {record.name} runs on, others wait for it: {names_of(others)}")
                known = await asyncio.to_thread(job.conclude, record, end, cancel=cancel)
            except RetriableError as error:
                watch = self._bear(watch, error)
                await asyncio.sleep(watch.pause_s(now=time.time()))
            else:
                return msgspec.structs.replace(record, end=known)

    async def _look(self, record: JobRecord, watch: PollPolicy, look_at: float) -> RemoteStatus | BatchError:
        """Ask for the job when it is time, or learn with others what ML Commons stored of it.

        A job of which ML Commons has no task is asked for at the service itself, as is one that ML Commons says it does
        not know: so it speaks too when it cannot load the model.
        """
        if record.task_id is not None:
            every_s = watch.pause_s(now=time.time())
            want = PollRequest(record.task_id, adapter_of(self.service), look_at, every_s, exact_from=watch.deadline_at)
            found = await lookout(self.opensearch_conn_id).look(want)
            if not isinstance(found, NotFound):
                return found
            self.log.warning("%s; the service itself is asked", found)
        await asyncio.sleep(max(0.0, look_at - time.time()))
        return await asyncio.to_thread(words_or_error, lambda: self._job().look(record))

    def _watch(self, started_at: float) -> PollPolicy:
        deadline_at = None if self.deadline_s is None else started_at + self.deadline_s
        return PollPolicy(started_at, self.poll_every_s, self.poll_at_most_s, deadline_at)

    def _bear(self, watch: PollPolicy, error: BatchError) -> PollPolicy:
        """Go on after an error that may pass; raise any other, and one that does not pass."""
        if not isinstance(error, RetriableError):
            raise error
        self.log.warning("%s", error)
        step = watch.on_error(now=time.time())
        if step is None:
            raise RetriableError(f"{error}; clear poll to go on waiting for the job") from error
        return step

    async def _be_seen(self, waiter: Waiter | None) -> None:
        """Say from time to time that this wait goes on."""
        while waiter is not None:
            await asyncio.to_thread(self._job().see, waiter)
            await asyncio.sleep(pause_s(random.random()))  # noqa: S311 - jitter, no secret

    def _waiter(self, ml_task_id: str) -> Waiter | None:
        """Who waits; None in a `dag.test`, which does not say."""
        ti: Any = self.task_instance
        return None if ti is None else waiter_of(ti, ml_task_id)

    def _job(self) -> JobHandle:
        return JobHandle(
            self.job,
            self.service,
            opensearch_conn_id=self.opensearch_conn_id,
            aws_conn_id=self.aws_conn_id,
            ai_conn_id=self.ai_conn_id,
        )

    def _state_of_task(self) -> str | None:
        """Ask Airflow what became of the task this trigger waited for."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti: Any = self.task_instance
        runs = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id]
        )
        states = [state for tasks in runs.values() for state in tasks.values()]
        return states[0] if states else None


def lookout(opensearch_conn_id: str) -> StatusPoller:
    """Return the lookout of all triggers in this event loop that wait for jobs of a cluster."""
    of_loop = _lookouts.setdefault(asyncio.get_running_loop(), {})
    if opensearch_conn_id not in of_loop:
        of_loop[opensearch_conn_id] = StatusPoller(lambda: shared_ml(opensearch_conn_id))
    return of_loop[opensearch_conn_id]
