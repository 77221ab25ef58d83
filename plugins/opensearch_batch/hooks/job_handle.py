"""Handle of a batch job: reads the job's record, records its end, and polls and stops the job.

Polls and stops go to ML Commons or to the AI service. Every method blocks, so triggers call the methods in threads.
All handles of a process share their clients.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, NotFound, RetriableError
from opensearch_batch.core.jobs.contract import ServiceClient, output_uris
from opensearch_batch.core.jobs.input_check import checked_end
from opensearch_batch.core.jobs.job_records import JobRecords, PolledStatus, polled_status_uri, service_counts
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.jobs.slots import GRACE_S, Slots
from opensearch_batch.core.jobs.status_poller import RemoteStatus, remote_status
from opensearch_batch.core.jobs.waiters import Waiter, Waiters
from opensearch_batch.core.opensearch.ml_commons import MLCommons
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import BAD_ENDS, End, JobRecord
from opensearch_batch.hooks.ai_services import client_of
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.hooks.shared_clients import shared_client
from opensearch_batch.services.registry import adapter_of

log = logging.getLogger(__name__)
# The arguments of a `JobHandle` that all jobs of a stage share; operators and triggers have attributes of these names.
HANDLE_ARGUMENTS = ("service", "opensearch_conn_id", "aws_conn_id", "ai_conn_id")


class JobResult(msgspec.Struct, frozen=True):
    """How a job ended: the XCom of `poll`.

    `outputs` are the locations of the job's output rows; a job that did not succeed may have written some. `counts` are
    the service's counts of records, empty if it reports none. `ml_task_id` (`task_id` in the XCom) is null for a job
    that ML Commons does not know.
    """

    ml_task_id: str | None = msgspec.field(name="task_id")
    state: str
    outputs: list[str]
    reason: str = ""
    counts: dict[str, int] = {}

    def job_output(self, objects: Objects, folder: str, service: str) -> JobOutput:
        """Return the output of the job recorded in this folder; raise ConfigError if this result is of another job.

        A task that starts from its trigger keeps its previous XCom until it ends, so `poll` has an outdated XCom if a
        user clears it and then marks it as success.
        """
        record = JobRecords(objects, folder).read()
        if record is None or not self._belongs_to(record, service):
            raise ConfigError(
                f"the result of poll (ML Commons task {self.ml_task_id}) does not belong to this shard's job {folder}: "
                "poll was marked as success by hand after a clear; clear batch_predict"
            )
        submission = record.submission_of(self.ml_task_id)
        return JobOutput(self.outputs, folder=folder, ml_task_id=self.ml_task_id, submission=submission)

    def _belongs_to(self, record: JobRecord, service: str) -> bool:
        if self.ml_task_id == record.ml_task_id:
            return set(self.outputs) <= set(output_uris(adapter_of(service), record, record.remote_job))
        # Another run submitted the job again (`force`) after this run's wait had ended.
        earlier = [each for each in record.history if self.ml_task_id and each["ml_task_id"] == self.ml_task_id]
        states = {self.state, *((each["end"] or {}).get("state") for each in earlier)}
        return bool(earlier) and states.isdisjoint(BAD_ENDS)


class JobHandle(msgspec.Struct, frozen=True):
    """One job, identified by the folder of its record; `service` is the AI service."""

    folder: str
    service: str
    opensearch_conn_id: str
    aws_conn_id: str
    ai_conn_id: str | None

    def record(self) -> JobRecord:
        """Return the job's record; raise ConfigError if there is no record, or the job was not submitted yet."""
        record = JobRecords(self._objects(), self.folder).read()
        if record is None or record.status == "intent":
            raise ConfigError(f"{self.folder}: no submitted job is recorded here; clear batch_predict")
        return record

    def task_status(self, ml_task_id: str) -> RemoteStatus:
        """Ask for the status through ML Commons; raise NotFound if it does not know the task or lacks its model."""
        ml_commons = shared_ml_commons(self.opensearch_conn_id)
        return remote_status(ml_commons, ml_task_id, adapter_of(self.service))

    def status(self, record: JobRecord) -> RemoteStatus:
        """Ask the service for the status; if it does not find the id, search; raise NotFound for an unknown job."""
        client = self._client(record)
        try:
            return client.describe(record)
        except NotFound:
            if status := client.find(record):
                return status
            raise

    def cancel(self, ml_task_id: str) -> None:
        """Cancel an ML Commons task."""
        shared_ml_commons(self.opensearch_conn_id).cancel(ml_task_id)

    def conclude(self, record: JobRecord, end: End, *, cancel: bool) -> End:
        """Record the job's end and return it; with `cancel`, stop the running job first."""
        if cancel:
            self.stop(record)
        end = self._end_of(record, end)
        try:
            JobRecords(self._objects(), self.folder).end(record.submission, end, record.remote_job)
        except RetriableError as error:
            log.warning("could not record the job's end; the next run asks the service again: %s", error)
        return end

    def conclude_if_unattended(self) -> End | None:
        """If no run waits for the job and it has ended, record its end and return it; otherwise return None.

        Nothing else records the end of a job whose `poll` was stopped, so it would keep its slot forever.
        """
        record = JobRecords(self._objects(), self.folder).read()
        if record is None or record.status != "submitted" or self._waiters().is_awaited():
            return None
        try:
            record = msgspec.structs.replace(record, remote_job={**record.remote_job, **self._any_status(record)})
        except NotFound as error:
            end = End("LOST", time.time(), f"neither ML Commons nor the service knows the job ({error})")
        else:
            status = adapter_of(self.service).job_status(record.remote_job)
            if status.state in {"RUNNING", "UNKNOWN"}:
                return None
            end = End(status.state, time.time(), status.reason)
        return self.conclude(record, end, cancel=False)

    def _any_status(self, record: JobRecord) -> RemoteStatus:
        """Return the job's status from ML Commons, else from the service."""
        if record.ml_task_id is not None:
            try:
                return self.task_status(record.ml_task_id)
            except NotFound as error:
                log.warning("%s; asking the service itself", error)
        return self.status(record)

    def _end_of(self, record: JobRecord, end: End) -> End:
        if end.state != "COMPLETED" or not record.input_etag:
            return end
        stored = JobRecords(self._objects(), self.folder).read()
        if stored and stored.submission == record.submission and stored.end is not None:
            # The input was checked when the end was first recorded; a later change did not affect the job.
            return stored.end
        return checked_end(self._objects(), record, end)

    def stop(self, record: JobRecord) -> None:
        """Stop a running job through ML Commons, or at the service if ML Commons cannot."""
        if record.ml_task_id is not None:
            try:
                self.cancel(record.ml_task_id)
            except (ConfigError, FatalError) as error:
                log.warning("%s; stopping the job at its service", error)
            else:
                return
        self._client(record).stop(record)

    def result(self, record: JobRecord, end: End) -> JobResult:
        """Return the result of an ended job."""
        counts = service_counts(record.remote_job)
        return JobResult(record.ml_task_id, end.state, self._outputs(record, end), end.reason, counts)

    def register_waiter(self, waiter: Waiter) -> None:
        """Register or refresh a waiter, so that other runs do not cancel the job."""
        try:
            self._waiters().register(waiter)
        except BatchError as error:
            log.warning("could not refresh the waiter's registration; another run may cancel this job: %s", error)

    def save_status(self, status: PolledStatus) -> None:
        """Save what the service reports of the job while it runs."""
        try:
            save(self._objects(), polled_status_uri(self.folder), status)
        except BatchError as error:
            log.warning("could not save the job's status; nothing but lists of jobs shows it: %s", error)

    def remove_and_list_remaining(self, waiter: Waiter) -> list[Waiter]:
        """Remove a waiter; return the remaining ones."""
        return self._waiters().remove_and_list_remaining(waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        """Remove a waiter; if that fails, its registration expires."""
        try:
            self._waiters().remove(waiter)
        except BatchError as error:
            log.warning("%s", error)

    def _outputs(self, record: JobRecord, end: End) -> list[str]:
        outputs = output_uris(adapter_of(self.service), record, record.remote_job)
        if end.state not in BAD_ENDS:
            return outputs
        # A service that stores files reports only those that exist. An S3 location is computed and may not exist.
        return [uri for uri in outputs if not uri.startswith("s3://") or self._exists(uri)]

    def _exists(self, uri: str) -> bool:
        try:
            return any(True for _ in self._objects().list(uri))
        except BatchError as error:
            log.warning("%s", error)
            return False

    def _waiters(self) -> Waiters:
        return Waiters(self._objects(), self.folder, clock=time.time)

    def _objects(self) -> Objects:
        return shared_object_storage(self.aws_conn_id)

    def _client(self, record: JobRecord) -> ServiceClient:
        make = partial(
            client_of, self.service, aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id, region=record.region
        )
        kind = f"{self.service} {record.region}".rstrip()
        return shared_client(kind, f"{self.aws_conn_id} {self.ai_conn_id or ''}".rstrip(), make)


def conclude_unattended(slots: Slots, arguments: Mapping[str, Any]) -> None:
    """Record the ends of ended jobs that hold slots and for which no run waits; this frees the slots.

    `arguments` are the HANDLE_ARGUMENTS of the jobs.
    """
    for uri, slot in slots.held():
        if time.time() < slot.at + GRACE_S:
            continue
        try:
            end = JobHandle(slot.holder, **arguments).conclude_if_unattended()
        except BatchError as error:
            log.warning("slot %s is held by job %s, whose status is unknown: %s", uri, slot.holder, error)
        else:
            if end is not None:
                log.info("job %s, which held slot %s, ended %s", slot.holder, uri, end.state)


def shared_ml_commons(opensearch_conn_id: str) -> MLCommons:
    """Return the ML Commons client that all callers in this process share."""
    return shared_client("opensearch", opensearch_conn_id, lambda: OpenSearchMLHook(opensearch_conn_id).ml)


def shared_object_storage(aws_conn_id: str) -> Objects:
    """Return the object storage client that all callers in this process share."""
    return shared_client("aws", aws_conn_id, lambda: object_storage(aws_conn_id))
