"""Submits a job with at most one paid call: writes the intent, calls the service, records the job.

Both writes are conditional. An attempt that finds only an intent searches for an orphan before it submits: among ML
Commons' tasks, then at the service. The attempt that wrote the intent may have stalled, and may still call the service
after the grace period. Two rules fence off this late call: the job keeps its name, so a service that identifies jobs by
name or token refuses a second one; and the file that was uploaded for the late call is deleted, so a service that needs
it refuses the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from opensearch_batch.core.errors import (
    AlreadySubmitted,
    ConfigError,
    NotFound,
    RemoteError,
    RetriableError,
    Throttled,
)
from opensearch_batch.core.jobs.contract import ServiceAdapter, ServiceClient, explain
from opensearch_batch.core.jobs.job_records import (
    CLEAR_TO_PAY,
    JobRecords,
    SubmitDecision,
    consumed_requests,
    decide,
    next_submission,
)
from opensearch_batch.core.opensearch.ml_commons import MLCommons, Model
from opensearch_batch.core.storage.json_document import Version
from opensearch_batch.core.types.job import Accepted, JobRecord, ResubmitRequest

INTENT_GRACE_S = 60.0
RACE_POLL_S = 1.0


class Submitter(Protocol):
    """The calls that `Submission` makes."""

    def stage(self, record: JobRecord) -> dict[str, str]:
        """Upload the shard's file if the service stores input files; return the identifiers of the upload."""

    def unstage(self, record: JobRecord) -> None:
        """Delete the file that `stage` uploaded."""

    def submit(self, record: JobRecord) -> Accepted:
        """Submit the job: the paid call."""

    def find(self, record: JobRecord) -> Accepted | None:
        """Find a job that was submitted but not recorded: its ML Commons task, else the job at the service."""


class Submission(msgspec.Struct, frozen=True):
    """Submits the job of one job key, or finds the submitted job, with at most one paid call.

    An intent of another attempt counts as abandoned after `intent_grace_s`, which is longer than a paid call can take.
    `check` raises if the job must not be paid for; it is called before anything is staged or written.
    """

    job_records: JobRecords
    submitter: Submitter
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    intent_grace_s: float = INTENT_GRACE_S
    check: Callable[[JobRecord], None] = lambda record: None  # noqa: ARG005 - by default any job may be paid for

    def run(self, draft: Callable[[int], JobRecord], request: ResubmitRequest) -> tuple[SubmitDecision, JobRecord]:
        """Submit once, or find what was submitted; return the decision and the record.

        The decision is "refuse" if the job did not succeed. `draft` creates the record of the submission with a given
        number.

        Raises:
            Throttled: the service throttles; nothing was submitted.
            RetriableError: the cluster or the store did not respond; the intent stays, and a retry recovers it.
        """
        while True:
            stored = self.job_records.load()
            record = stored.value if stored else None
            decision = decide(record, request)
            if decision in {"reattach", "reuse", "refuse"} and record is not None:
                return decision, record
            submitted = self._act(decision, stored, draft, request)
            if submitted is not None:
                return decision, submitted

    def _act(
        self,
        decision: SubmitDecision,
        stored: Version[JobRecord] | None,
        draft: Callable[[int], JobRecord],
        request: ResubmitRequest,
    ) -> JobRecord | None:
        """Do one step; return None if another attempt changed the record, so that the caller reads it again."""
        if stored is None:
            first = msgspec.structs.replace(draft(1), consumed_requests=consumed_requests([], request))
            return self._intend(first, etag=None)
        old, etag = stored
        if decision == "resubmit":
            return self._intend(next_submission(old, draft(old.submission + 1), request), etag=etag)
        # The new draft uses a corrected model or connector. The job keeps its name, even from another pipeline.
        fresh = msgspec.structs.replace(
            draft(old.submission),
            name=old.name,
            consumed_requests=consumed_requests(old.consumed_requests, request),
            history=old.history,
            staged=old.staged,
            restage=old.restage,
        )
        return self._recover(old, fresh, etag)

    def _intend(self, record: JobRecord, *, etag: str | None) -> JobRecord | None:
        """Stage, write the intent, submit. The intent names the staged file, which identifies an orphan."""
        self.check(record)
        is_staged = bool(record.staged) and not record.restage
        if record.restage:
            self.submitter.unstage(record)
        staged = record.staged if is_staged else self.submitter.stage(record)
        # Set after the upload, which may be slow: the age of the intent counts from the paid call.
        record = msgspec.structs.replace(record, staged=staged, restage=False, intended_at=self.clock())
        if not self.job_records.write(record, etag=etag):
            if not is_staged:
                self.submitter.unstage(record)
            return None
        # This process may have stalled since the write, and another attempt may have taken over.
        if self._own_intent(record) is None:
            return None
        try:
            return self._accept(record, self.submitter.submit(record))
        except Throttled as error:
            self._update(record, refused=str(error))
            raise
        except AlreadySubmitted as error:
            orphan = self.submitter.find(record)
            if orphan is None:
                raise AlreadySubmitted(f"{error}; {CLEAR_TO_PAY}") from error
            return self._accept(record, orphan)
        except (ConfigError, NotFound) as error:
            if self._update(record, refused=str(error), restage=True) is None:
                # Another attempt took over the intent, and deleted the file of this call.
                return None
            raise

    def _accept(self, record: JobRecord, accepted: Accepted) -> JobRecord | None:
        changes = {"ml_task_id": accepted.ml_task_id, "remote_job": accepted.remote_job, "end": accepted.end}
        return self._update(record, refused=None, **changes)

    def _recover(self, record: JobRecord, fresh: JobRecord, etag: str) -> JobRecord | None:
        """Wait while another attempt may be submitting; then record its orphan, or take the intent over.

        Search for an orphan even after an error response: ML Commons submits before it stores its task.
        """
        if record.refused is not None:
            orphan = self.submitter.find(record)
        elif self.clock() < record.active_at + self.intent_grace_s:
            self.sleep(RACE_POLL_S)
            return None
        else:
            orphan = self.submitter.find(record) or self._fence(record)
            # If the late call arrives before ours, the job of this name reads and writes the locations of that call.
            fresh = msgspec.structs.replace(
                fresh, input=record.input, output=record.output, input_etag=record.input_etag, staged={}
            )
        return self._accept(record, orphan) if orphan else self._intend(fresh, etag=etag)

    def _fence(self, record: JobRecord) -> Accepted | None:
        """Delete the file of a call that may still arrive; return the job if the call arrived before."""
        if not record.staged:
            return None
        self.submitter.unstage(record)
        return self.submitter.find(record)

    def _update(self, record: JobRecord, **changes: Any) -> JobRecord | None:  # noqa: ANN401 - fields of JobRecord
        """Record the result of the paid call; return None if another attempt has changed the record."""
        intent = self._own_intent(record)
        if intent is None:
            return None
        updated = msgspec.structs.replace(record, **changes)
        return updated if self.job_records.write(updated, etag=intent.etag) else None

    def _own_intent(self, record: JobRecord) -> Version[JobRecord] | None:
        """Return the stored intent of this record, None if another attempt took it over."""
        stored = self.job_records.load()
        if stored is None or stored.value.submission != record.submission:
            raise RetriableError(
                f"{self.job_records.uri} was removed or replaced while its job {record.name} was being submitted"
            )
        is_own = stored.value.status == "intent" and stored.value.is_intent_of(record)
        return stored if is_own else None


class MLCommonsSubmitter(msgspec.Struct, frozen=True):
    """Submits jobs through ML Commons, and uploads the input files that a service stores itself.

    `overrides` are parameters that override the connector's. `inputs` are the paths that the model reads.
    """

    ml: MLCommons
    adapter: ServiceAdapter
    client: ServiceClient
    model: Model
    overrides: Mapping[str, Any]
    inputs: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """The connector's parameters, overridden by the pipeline's."""
        return {**self.model.parameters, **self.overrides}

    def stage(self, record: JobRecord) -> dict[str, str]:
        return self.client.stage(record.input, record.name)

    def unstage(self, record: JobRecord) -> None:
        self.client.unstage(record.staged)

    def submit(self, record: JobRecord) -> Accepted:
        job_parameters = self.adapter.batch_predict_parameters(record, self.parameters, self.inputs)
        try:
            return self.ml.batch_predict(record.model_id, {**self.overrides, **job_parameters})
        except RemoteError as error:
            raise explain(self.adapter, error) from error

    def find(self, record: JobRecord) -> Accepted | None:
        for task in self.ml.tasks(record.model_id):
            remote_job = task.get("remote_job") or {}
            if self.adapter.is_job(record, remote_job) and self.may_be_orphan(record, remote_job, task["create_time"]):
                return Accepted(task["task_id"], remote_job)
        service_job = self.client.find(record)
        return Accepted(None, service_job) if service_job and self.may_be_orphan(record, service_job, None) else None

    def may_be_orphan(self, record: JobRecord, remote_job: Mapping[str, Any], created_at_ms: float | None) -> bool:  # noqa: ARG002 - a subclass needs them
        """Return True: only this package gives a job this name, or this file.

        A subclass may return False. `created_at_ms` is when ML Commons created the job's task; None if it has none.
        """
        return True
