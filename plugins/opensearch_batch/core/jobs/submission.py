"""Submits jobs: at most one paid call for each submission. Intent, call and record, each record a conditional write.

If an intent has no result, its orphan is looked for before another call: among ML Commons' tasks, then at the service.
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
    Decision,
    JobRecords,
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
    """The calls a submission makes."""

    def stage(self, record: JobRecord) -> dict[str, str]:
        """Upload the shard's file, if the service keeps files; return what names it there. This costs nothing."""

    def unstage(self, record: JobRecord) -> None:
        """Delete what was staged."""

    def submit(self, record: JobRecord) -> Accepted:
        """Submit the job: the paid call."""

    def find(self, record: JobRecord) -> Accepted | None:
        """Return the orphan of a record: a job that was submitted but not recorded. None for none."""


class Submission:
    """Brings one job key to a submitted (or already ended) job, by at most one paid call.

    Args:
        job_records: the job's record.
        cluster: submits and finds orphans.
        clock: epoch seconds.
        sleep: waits that many seconds.
        intent_grace_s: age at which another attempt's intent without a result counts as abandoned; longer than the paid
            call can take.
        check: raises if the job must not be submitted; called before anything is staged or written for it.
    """

    def __init__(
        self,
        job_records: JobRecords,
        cluster: Submitter,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        intent_grace_s: float = INTENT_GRACE_S,
        check: Callable[[JobRecord], None] = lambda record: None,  # noqa: ARG005 - any job may be paid
    ) -> None:
        self._job_records = job_records
        self._cluster = cluster
        self._clock = clock
        self._sleep = sleep
        self._grace_s = intent_grace_s
        self._check = check

    def run(self, draft: Callable[[int], JobRecord], asked: ResubmitRequest) -> tuple[Decision, JobRecord]:
        """Submit the job, or reattach to it; return the decision and the record: "refuse" for a job that ended badly.

        Args:
            draft: makes the record of a submission.
            asked: whether a person asked for another job.

        Raises:
            Throttled: the service throttles.
            RetriableError: the cluster or the store did not answer; the intent stays, and a retry finds it.
        """
        while True:
            found = self._job_records.load()
            record = found.value if found else None
            decision = decide(record, asked)
            if decision in {"reattach", "reuse", "refuse"} and record is not None:
                return decision, record
            done = self._act(decision, found, draft, asked)
            if done is not None:
                return decision, done

    def _act(
        self,
        decision: Decision,
        found: Version[JobRecord] | None,
        draft: Callable[[int], JobRecord],
        asked: ResubmitRequest,
    ) -> JobRecord | None:
        """Take one step; return None if another attempt changed the record, which must be read again."""
        if found is None:
            first = msgspec.structs.replace(draft(1), consumed_requests=consumed_requests([], asked))
            return self._intend(first, over=None)
        old, etag = found
        if decision == "again":
            return self._intend(next_submission(old, draft(old.submission + 1), asked), over=etag)
        # A new draft uses a corrected model or connector; the name is that of the submission.
        fresh = msgspec.structs.replace(
            draft(old.submission),
            consumed_requests=consumed_requests(old.consumed_requests, asked),
            history=old.history,
            staged=old.staged,
            restage=old.restage,
        )
        return self._recover(old, fresh, etag)

    def _intend(self, record: JobRecord, *, over: str | None) -> JobRecord | None:
        """Stage, write the intent, submit. The intent names what is staged, by which an orphan can be found."""
        self._check(record)
        is_staged = bool(record.staged) and not record.restage
        if record.restage:
            self._cluster.unstage(record)
        staged = record.staged if is_staged else self._cluster.stage(record)
        # After the upload, which may take long: the intent must be as old as the paid call.
        record = msgspec.structs.replace(record, staged=staged, restage=False, intended_at=self._clock())
        if not self._job_records.write(record, over=over):
            if not is_staged:
                self._cluster.unstage(record)
            return None
        try:
            return self._accept(record, self._cluster.submit(record))
        except Throttled as error:
            self._update(record, refused=str(error))
            raise
        except AlreadySubmitted as error:
            orphan = self._cluster.find(record)
            if orphan is None:
                raise AlreadySubmitted(f"{error}; {CLEAR_TO_PAY}") from error
            return self._accept(record, orphan)
        except (ConfigError, NotFound) as error:
            self._update(record, refused=str(error), restage=True)
            raise

    def _accept(self, record: JobRecord, accepted: Accepted) -> JobRecord | None:
        return self._update(record, ml_task_id=accepted.ml_task_id, remote_job=accepted.remote_job, refused=None)

    def _recover(self, record: JobRecord, fresh: JobRecord, etag: str) -> JobRecord | None:
        """Wait while the intent may be another attempt's in progress; then attach its orphan, or take the intent over.

        Look for an orphan even after an error response: ML Commons submits before it stores its task.
        """
        if record.refused is None and self._clock() < record.intended_at + self._grace_s:
            self._sleep(RACE_POLL_S)
            return None
        if orphan := self._cluster.find(record):
            return self._accept(record, orphan)
        return self._intend(fresh, over=etag)

    def _update(self, record: JobRecord, **known: Any) -> JobRecord | None:  # noqa: ANN401 - fields of JobRecord
        """Write the result of the paid call, which is over: a lost race is read again, and the call never repeated."""
        found = self._job_records.load()
        if found is None or found.value.submission != record.submission:
            raise RetriableError(f"{self._job_records.uri} was removed while its job {record.name} was being submitted")
        if found.value.status != "intent" or found.value.intended_at != record.intended_at:
            # Another attempt took the intent over, and the record is its own.
            return None
        updated = msgspec.structs.replace(record, **known)
        return updated if self._job_records.write(updated, over=found.etag) else None


class ThroughMLCommons:
    """Submits jobs through ML Commons, and stages files at services that keep them.

    Args:
        ml: ML Commons.
        adapter: the service's adapter.
        client: the service's client.
        model: the model, and its connector's parameters.
        parameters: override the connector's.
        inputs: the paths the model reads.
    """

    def __init__(
        self,
        ml: MLCommons,
        adapter: ServiceAdapter,
        client: ServiceClient,
        *,
        model: Model,
        parameters: Mapping[str, Any],
        inputs: tuple[str, ...] = (),
    ) -> None:
        self._ml = ml
        self._adapter = adapter
        self._client = client
        self._model = model
        self._overrides = dict(parameters)
        self._inputs = inputs

    @property
    def parameters(self) -> dict[str, Any]:
        """The connector's parameters, overridden by the pipeline's."""
        return {**self._model.parameters, **self._overrides}

    def stage(self, record: JobRecord) -> dict[str, str]:
        """Upload the shard's file, if the service keeps files."""
        return self._client.stage(record.input, record.name)

    def unstage(self, record: JobRecord) -> None:
        """Delete the uploaded file."""
        self._client.unstage(record.staged)

    def submit(self, record: JobRecord) -> Accepted:
        """Submit the job: the paid call."""
        own = self._adapter.batch_predict_parameters(record, self.parameters, self._inputs)
        try:
            return self._ml.batch_predict(record.model_id, self._overrides | own)
        except RemoteError as error:
            raise explain(self._adapter, error) from error

    def find(self, record: JobRecord) -> Accepted | None:
        """Return the job of a record whose answer was lost, None for none."""
        for task in self._ml.tasks(record.model_id):
            if self._adapter.is_job(record, task.get("remote_job") or {}):
                return Accepted(task["task_id"], task["remote_job"])
        remote_job = self._client.find(record)
        return None if remote_job is None else Accepted(None, remote_job)
