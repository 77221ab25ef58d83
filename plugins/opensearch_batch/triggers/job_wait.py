"""Waits for one batch job in the triggerer.

The wait cancels the job at its deadline, or when a user ends the wait, unless other runs wait for the job. All waits of
an event loop poll a cluster's jobs through one poller, which bounds how many polls run at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, NotFound, RetriableError
from opensearch_batch.core.jobs.job_records import PolledStatus, bad_end_message, progress_message
from opensearch_batch.core.jobs.poll_policy import Decision, PollPolicy
from opensearch_batch.core.jobs.status_poller import RemoteStatus, StatusPoller
from opensearch_batch.core.jobs.waiters import Waiter, pause_s
from opensearch_batch.core.types.job import BAD_ENDS, End, JobRecord
from opensearch_batch.hooks.job_handle import JobHandle, JobResult
from opensearch_batch.services.registry import adapter_of

if TYPE_CHECKING:
    from airflow.sdk.types import Logger, RuntimeTaskInstanceProtocol

MAX_NAMED_WAITERS = 3
# A poller belongs to an event loop; a triggerer has one loop, `dag.test` one for each trigger.
_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, StatusPoller]] = WeakKeyDictionary()


class SubmittedJob(msgspec.Struct, frozen=True):
    """A job that `batch_predict` submitted, as in its XCom.

    `ml_task_id` (`task_id` in the XCom) is null for a job that ML Commons does not know. `job` is the folder of the
    job's record, and `output` the location of its output.
    """

    ml_task_id: str | None = msgspec.field(name="task_id")
    job: str
    output: str = ""


class PollSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the waits of a stage share; the fields are arguments of `OpenSearchMLTaskSensor`."""

    service: str
    poll_every_s: float
    poll_at_most_s: float
    deadline_s: float | None
    opensearch_conn_id: str
    aws_conn_id: str
    ai_conn_id: str | None = None


class JobWait:
    """Polls a job until it ends, and records the end. In `dag.test` there is no task instance, and no waiter."""

    def __init__(
        self, job: SubmittedJob, settings: PollSettings, *, ti: RuntimeTaskInstanceProtocol | None, log: Logger
    ) -> None:
        self._job = job
        self._settings = settings
        self._ti = ti
        self._log = log
        self._polled: JobRecord | None = None
        self._has_warned = False

    async def run(self) -> JobResult | None:
        """Wait for the job's end, and return the result; None if the wait failed."""
        try:
            record = await self._load_record()
            record = record if record.end else await self._wait(record)
        except BatchError as error:
            self._log.error("%s", error)
            return None
        end = cast("End", record.end)
        if end.state in BAD_ENDS:
            self._log.error(bad_end_message(record))
        else:
            self._log.info("job %s (ML Commons task %s) ended %s", record.name, record.ml_task_id, end.state)
        return await asyncio.to_thread(self._handle().result, record, end)

    def cancel_unless_awaited(self, state: str | None) -> None:
        """A user marked the task with this state: cancel the job, unless other runs wait for it."""
        ml_task_id, handle = self._job.ml_task_id, self._handle()
        record, waiter = handle.record(), self._waiter(ml_task_id)
        if others := handle.remove_and_list_remaining(waiter) if waiter else []:
            self._log.info("job %s continues, because other runs wait for it: %s", record.name, _names_of(others))
        elif ml_task_id and record.ml_task_id != ml_task_id:
            # Another run submitted the job again (`force`); cancel only the ML Commons task of this wait.
            handle.cancel(ml_task_id)
        elif record.end is None:
            end = End("CANCELLED", time.time(), f"cancelled, because the Airflow task was marked {state}")
            handle.conclude(record, end, cancel=True)
            self._log.info("job %s (ML Commons task %s) %s", record.name, record.ml_task_id, end.reason)

    async def _load_record(self) -> JobRecord:
        """Return the job's record; retry while the store does not respond."""
        policy = self._poll_policy(time.time())
        while True:
            try:
                return await asyncio.to_thread(self._handle().record)
            except RetriableError as error:
                policy = self._tolerate(policy, error)
            await asyncio.sleep(policy.pause_s(now=time.time()))

    async def _wait(self, record: JobRecord) -> JobRecord:
        """Wait for the job's end as a registered waiter; return the record with the end."""
        waiter = self._waiter(record.ml_task_id)
        background_tasks = [asyncio.create_task(self._refresh(waiter)), asyncio.create_task(self._log_progress(record))]
        try:
            record = await self._poll_until_ended(record)
        except asyncio.CancelledError:
            # The waiter stays: another triggerer or attempt continues the wait, or `on_kill` removes the waiter.
            waiter = None
            raise
        finally:
            for task in background_tasks:
                task.cancel()
            if waiter:
                await asyncio.to_thread(self._handle().remove_waiter, waiter)
        return record

    async def _poll_until_ended(self, record: JobRecord) -> JobRecord:
        """Poll, decide and pause until the job has an end; return the record with the end."""
        adapter = adapter_of(self._settings.service)
        policy, poll_at = self._poll_policy(record.intended_at), time.time()
        # Polls are not logged here; `_log_progress` logs the job at most once a minute.
        while True:
            is_running = False
            step: Decision
            try:
                status = await self._poll(record, policy, poll_at)
            except NotFound as error:
                step = End("LOST", time.time(), f"neither ML Commons nor the service knows the job ({error})")
            except BatchError as error:
                step = self._tolerate(policy, error)
            else:
                self._polled = record = msgspec.structs.replace(record, remote_job={**record.remote_job, **status})
                job_status = adapter.job_status(record.remote_job)
                is_running = job_status.state == "RUNNING"
                if job_status.state == "UNKNOWN":
                    step = self._tolerate(policy, RetriableError(f"job {record.name}: {job_status.reason}"))
                else:
                    step = policy.on_status(job_status, now=time.time())
            if isinstance(step, End):
                return await self._conclude(record, policy, step, cancel=is_running)
            policy = step
            poll_at = policy.next_poll_at(now=time.time(), jitter=random.random())  # noqa: S311 - jitter, no secret

    async def _conclude(self, record: JobRecord, policy: PollPolicy, end: End, *, cancel: bool) -> JobRecord:
        """Record the end and return the record with the end; a job that runs at its deadline is cancelled first.

        Raise FatalError if the job would be cancelled, but other runs wait for it.
        """
        handle, waiter = self._handle(), self._waiter(record.ml_task_id)
        while True:
            try:
                if cancel and waiter and (others := await asyncio.to_thread(handle.remove_and_list_remaining, waiter)):
                    raise FatalError(
                        f"{end.reason}; job {record.name} continues, because other runs wait for it: "
                        f"{_names_of(others)}"
                    )
                recorded = await asyncio.to_thread(handle.conclude, record, end, cancel=cancel)
            except RetriableError as error:
                policy = self._tolerate(policy, error)
                await asyncio.sleep(policy.pause_s(now=time.time()))
            else:
                return msgspec.structs.replace(record, end=recorded)

    async def _poll(self, record: JobRecord, policy: PollPolicy, poll_at: float) -> RemoteStatus:
        """Poll the job's status at the time `poll_at`.

        If the job has no ML Commons task, or ML Commons does not return its status, the service itself is polled with
        the key of the Airflow connection. ML Commons fails if the connector has an old key or a status action that ML
        Commons cannot execute; it answers "not found" if it cannot load the model.

        Raises:
            NotFound: neither ML Commons nor the service knows the job.
            RetriableError: the service refuses, or lacks a job that ML Commons may know; a shared client keeps an old
                key for minutes after a change.
        """
        handle, refused = self._handle(), None
        poll = partial(
            status_poller(self._settings.opensearch_conn_id).poll, poll_at=poll_at, deadline_at=policy.deadline_at
        )
        if record.ml_task_id is not None:
            try:
                return await poll(partial(handle.task_status, record.ml_task_id))
            except (ConfigError, FatalError) as error:
                refused = error
                # Warn once: the log lines of many triggers can block the triggerer (`StatusPoller`).
                if not self._has_warned:
                    self._log.warning("%s; polling the service itself", error)
                self._has_warned = True
        try:
            return await poll(partial(handle.status, record))
        except NotFound as error:
            if refused is None or isinstance(refused, NotFound):
                raise
            raise RetriableError(f"{refused}; the service itself, asked with the connection's key: {error}") from error
        except ConfigError as error:
            raise RetriableError(f"{error}" if refused is None else f"{refused}; {error}") from error

    def _poll_policy(self, started_at: float) -> PollPolicy:
        deadline_at = None if self._settings.deadline_s is None else started_at + self._settings.deadline_s
        return PollPolicy(started_at, self._settings.poll_every_s, self._settings.poll_at_most_s, deadline_at)

    def _tolerate(self, policy: PollPolicy, error: BatchError) -> PollPolicy:
        """Return the policy after a temporary error; raise a permanent error, or one that lasts too long."""
        if not isinstance(error, RetriableError):
            raise error
        self._log.warning("%s", error)
        step = policy.on_error(now=time.time())
        if step is None:
            raise RetriableError(f"{error}; clear poll to continue waiting for the job") from error
        return step

    async def _log_progress(self, record: JobRecord) -> None:
        """Log the progress at most once a minute until cancelled; save the service's status when it has changed."""
        saved: PolledStatus | None = None
        while True:
            await status_poller(self._settings.opensearch_conn_id).log_turn()
            record = self._polled or record
            state = adapter_of(self._settings.service).job_status(record.remote_job).state
            self._log.info(progress_message(record, state, now=time.time()))
            if self._polled is not None and (status := PolledStatus.of(record)) != saved:
                saved = status
                await asyncio.to_thread(self._handle().save_status, status)

    async def _refresh(self, waiter: Waiter | None) -> None:
        """Refresh the waiter's registration until cancelled."""
        while waiter is not None:
            await asyncio.to_thread(self._handle().register_waiter, waiter)
            await asyncio.sleep(pause_s(random.random()))  # noqa: S311 - jitter, no secret

    def _waiter(self, ml_task_id: str | None) -> Waiter | None:
        return None if self._ti is None else waiter_of(self._ti, ml_task_id)

    def _handle(self) -> JobHandle:
        shared = self._settings
        return JobHandle(
            self._job.job, shared.service, shared.opensearch_conn_id, shared.aws_conn_id, shared.ai_conn_id
        )


def waiter_of(ti: RuntimeTaskInstanceProtocol, ml_task_id: str | None) -> Waiter:
    """Return the run of a task instance as a waiter for a job."""
    map_index = -1 if ti.map_index is None else ti.map_index
    return Waiter(ti.dag_id, ti.run_id, ti.task_id, map_index, ml_task_id)


def status_poller(opensearch_conn_id: str) -> StatusPoller:
    """Return the poller of a cluster's jobs that all triggers in this event loop share."""
    return _pollers.setdefault(asyncio.get_running_loop(), {}).setdefault(opensearch_conn_id, StatusPoller())


def _names_of(waiters: Sequence[Waiter]) -> str:
    """Return the first few waiters as text for a log line."""
    more = len(waiters) - MAX_NAMED_WAITERS
    return ", ".join(map(str, waiters[:MAX_NAMED_WAITERS])) + (f" and {more} more" if more > 0 else "")
