"""A job that is waited for, with the clients of its connections; a process makes each client once, however many wait.

Everything here blocks and runs in threads: `poll` decides when.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RetriableError
from opensearch_batch.core.jobs.contract import ServiceClient
from opensearch_batch.core.jobs.input_check import end_of
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import Answered
from opensearch_batch.core.jobs.status_poller import RemoteStatus
from opensearch_batch.core.jobs.waiters import Waiter, Waiters
from opensearch_batch.core.opensearch.ml_commons import MLCommons
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import BAD_ENDS, End, JobRecord
from opensearch_batch.hooks.ai_services import provider_of
from opensearch_batch.hooks.opensearch import OpenSearchMLHook, Shared, objects
from opensearch_batch.services.registry import adapter_of

T = TypeVar("T")
NAMED_AT_MOST = 3
log = logging.getLogger(__name__)
_clients = Shared()


class Polled(msgspec.Struct, frozen=True):
    """How a job ended: what `poll` returns.

    `outputs` are the locations of the job's rows: of one that ended badly, those it wrote all the same. `counts` is
    what the service itself counted, if it does. `task_id` is null for a job that ML Commons does not know.
    """

    task_id: str | None
    state: str
    outputs: list[str]
    reason: str = ""
    counts: dict[str, int] = {}

    def answered(self, job: str) -> Answered:
        """Return what the job, whose record lies in this folder, answered."""
        return Answered(self.outputs, None, job, self.task_id)


class JobHandle:
    """One job, by the folder of its record.

    Args:
        folder: where its record lies.
        service_name: the AI service.
        opensearch_conn_id, aws_conn_id, ai_conn_id: the connections.
    """

    def __init__(
        self,
        folder: str,
        service_name: str,
        *,
        opensearch_conn_id: str,
        aws_conn_id: str,
        ai_conn_id: str | None,
    ) -> None:
        self._folder = folder
        self._service_name = service_name
        self._opensearch_conn_id = opensearch_conn_id
        self._aws_conn_id = aws_conn_id
        self._ai_conn_id = ai_conn_id

    def record(self) -> JobRecord:
        """Return its record.

        Raises:
            ConfigError: there is none, or its submission is not over.
        """
        found = JobRecords(self._objects(), self._folder).load()
        if found is None or found[0].status == "intent":
            raise ConfigError(f"{self._folder}: no submitted job is recorded here; clear batch_predict")
        return found[0]

    def look(self, record: JobRecord) -> RemoteStatus:
        """Ask the service itself for the job; where the record does not name it, by what only this job has.

        Raises:
            NotFound: the service does not know it.
        """
        provider = self._provider()
        try:
            return provider.look(record)
        except NotFound:
            if found := provider.find(record):
                return found
            raise

    def cancel(self, task_id: str) -> None:
        """Cancel an ML Commons task."""
        shared_ml(self._opensearch_conn_id).cancel(task_id)

    def conclude(self, record: JobRecord, end: End, *, cancel: bool) -> End:
        """Record how it ended, and return that; cancel it first where it runs on."""
        if cancel:
            self._stop(record)
        end = self._end_of(record, end)
        try:
            JobRecords(self._objects(), self._folder).end(record.submission, end, record.remote_job)
        except RetriableError as error:
            log.warning("the end is not recorded, the next run will ask the service again: %s", error)
        return end

    def _end_of(self, record: JobRecord, end: End) -> End:
        if end.state != "COMPLETED" or not record.input_etag:
            return end
        found = JobRecords(self._objects(), self._folder).load()
        if found and found[0].submission == record.submission and found[0].end is not None:
            # Who saw it first compared the input; what changed after that the job did not read.
            return found[0].end
        return end_of(self._objects(), record, end)

    def _stop(self, record: JobRecord) -> None:
        if record.task_id is not None:
            try:
                self.cancel(record.task_id)
            except NotFound:
                log.warning("ML Commons does not know task %s; the job is stopped at its service", record.task_id)
            else:
                return
        self._provider().stop(record)

    def result(self, record: JobRecord, end: End) -> Polled:
        """Return what is known of an ended job."""
        counts = {name: int(count) for name, count in (record.remote_job.get("request_counts") or {}).items()}
        return Polled(record.task_id, end.state, self._outputs(record, end), end.reason, counts)

    def see(self, waiter: Waiter) -> None:
        """Let others know that somebody waits for it."""
        try:
            self._waiters().see(waiter)
        except BatchError as error:
            log.warning("who ends the wait of another run may not see that this one goes on: %s", error)

    def left(self, waiter: Waiter) -> list[Waiter]:
        """Wait for it no more; return who else does."""
        return self._waiters().left(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Wait for it no more; where that cannot be recorded, others see it after a while."""
        try:
            self._waiters().leave(waiter)
        except BatchError as error:
            log.warning("%s", error)

    def _outputs(self, record: JobRecord, end: End) -> list[str]:
        outputs = adapter_of(self._service_name).outputs(record, record.remote_job)
        if end.state not in BAD_ENDS:
            return outputs
        # A service names its own files; a place on S3 is where rows would lie, had the job come so far.
        return [uri for uri in outputs if not uri.startswith("s3://") or self._is_there(uri)]

    def _is_there(self, uri: str) -> bool:
        try:
            return any(True for _ in self._objects().list(uri))
        except BatchError as error:
            log.warning("%s", error)
            return False

    def _waiters(self) -> Waiters:
        return Waiters(self._objects(), self._folder, clock=time.time)

    def _objects(self) -> Objects:
        return shared("aws", self._aws_conn_id, lambda: objects(self._aws_conn_id))

    def _provider(self) -> ServiceClient:
        def make() -> ServiceClient:
            return provider_of(self._service_name, aws_conn_id=self._aws_conn_id, ai_conn_id=self._ai_conn_id)

        return shared(self._service_name, f"{self._aws_conn_id} {self._ai_conn_id or ''}".rstrip(), make)


def waiter_of(ti: Any, ml_task_id: str) -> Waiter:  # noqa: ANN401 - Airflow's task instance
    """Return who waits: the run of a task instance."""
    return Waiter(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ml_task_id)


def shared_ml(opensearch_conn_id: str) -> MLCommons:
    """Return the ML Commons of a connection, with the client all waits of this process share."""
    return shared("opensearch", opensearch_conn_id, lambda: OpenSearchMLHook(opensearch_conn_id).ml)


def shared(kind: str, name: str, make: Callable[[], T]) -> T:
    """Return what all waits of this process share.

    Raises:
        RetriableError: Airflow cannot tell now what the connection is, which must not end thousands of waits.
    """
    try:
        return _clients.get((kind, name), make)
    except BatchError:
        raise
    except Exception as error:
        raise RetriableError(f"connection {name}: no client for {kind} can be made now ({error!r})") from error


def names_of(waiters: Sequence[Waiter]) -> str:
    """Name some of them for a log."""
    more = len(waiters) - NAMED_AT_MOST
    return ", ".join(map(str, waiters[:NAMED_AT_MOST])) + (f" and {more} more" if more > 0 else "")


def words_or_error(ask: Callable[[], RemoteStatus]) -> RemoteStatus | BatchError:
    """Return what a call returns or raises, as a lookout does."""
    try:
        return ask()
    except BatchError as error:
        return error
