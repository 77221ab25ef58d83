"""The job of a `_batch_predict` request, whose input and parameters a user chose.

The job of a shard is identified by the shard's content. The job of a request is identified by the model, all its
parameters, and the content of its input. So a request that is sent again, because its response was lost, finds its job,
and so does one whose input did not change. After a job that did not succeed, the next request submits a new one.

If the content of the input is unknown, a job stands for equal requests only until it ends. A name that the user chose
is used once, as at the service itself. The files of a request are the user's, so none is uploaded or deleted; a call
that arrives late cannot be fenced off by deleting its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from opensearch_batch.core.errors import AlreadySubmitted, ConfigError, RemoteError
from opensearch_batch.core.jobs.contract import RequestedInput, ServiceAdapter, explain
from opensearch_batch.core.jobs.job_records import JobRecords, job_key
from opensearch_batch.core.jobs.submission import MLCommonsSubmitter
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.job import BAD_ENDS, Accepted, End, JobRecord

# Clocks of this process, of the cluster and of a service may differ by this much. A job with a name that a user chose
# may be somebody else's, and the service itself refuses a second one, so it must not be much older than the intent.
CLOCK_SKEW_S, CLOCK_SKEW_OF_NAMED_S = 300.0, 5.0


class RequestedJob(msgspec.Struct, frozen=True):
    """The job that a request asks for: its key, its name if the user chose one, and its input.

    `is_content_known` tells whether the key contains the content of the input.
    """

    key: str
    name: str | None
    input: RequestedInput
    is_content_known: bool

    @classmethod
    def of(
        cls, adapter: ServiceAdapter, model_id: str, parameters: Mapping[str, Any], objects: Objects
    ) -> RequestedJob:
        """Return the job of a request; `parameters` are the connector's, overridden by the request's."""
        requested = adapter.requested_input(parameters)
        content = content_digest(objects, requested)
        name = parameters.get(adapter.name_parameter) if adapter.name_parameter else None
        return cls(
            job_key(adapter.name, model_id, parameters, content or "unknown"),
            None if name is None else str(name),
            requested,
            content is not None,
        )

    def make_room(self, adapter: ServiceAdapter, records: JobRecords, *, force: bool, now: float) -> None:
        """Prepare the record of an ended job for a new submission, if one is due.

        Raise AlreadySubmitted if it is due, but the name that the user chose belongs to the ended job.
        """
        record = records.read()
        if record is None or record.end is None:
            return
        if record.end.state not in BAD_ENDS and not self.is_content_known:
            reason = "the content of its input is unknown, so the job stands for no other request"
            records.end(record.submission, End("UNUSABLE", now, reason))
        elif record.end.state not in BAD_ENDS and not force:
            return
        if self.name is not None:
            raise AlreadySubmitted(
                f"job {self.name} ended {record.end.state}, and its name cannot be used again; {_another_name(adapter)}"
            )


def content_digest(objects: Objects, requested: RequestedInput) -> str | None:
    """Return a digest of what a job will read, None if it is unknown, or may not be listed."""
    if requested.staged:
        return digest(*(f"{name}={value}" for name, value in sorted(requested.staged.items())))
    if not requested.prefix:
        return None
    try:
        return digest(*(f"{item.uri} {item.etag}" for item in objects.list(requested.prefix)))
    except ConfigError:
        return None


class RequestedJobSubmitter(MLCommonsSubmitter, frozen=True, kw_only=True):
    """Submits the job `job` of a request; `dlq` is passed on."""

    job: RequestedJob
    dlq: Mapping[str, Any] | None

    def stage(self, record: JobRecord) -> dict[str, str]:  # noqa: ARG002 - the protocol's parameter
        """Return the ids of the user's files; nothing is uploaded."""
        return dict(self.job.input.staged)

    def unstage(self, record: JobRecord) -> None:
        """Do nothing: the files are the user's."""

    def submit(self, record: JobRecord) -> Accepted:
        """Submit the job; raise ConfigError, too, if its name was chosen by a user and is taken."""
        named = {self.adapter.name_parameter: record.name} if self.adapter.name_parameter else {}
        try:
            return self.ml.batch_predict(record.model_id, {**self.overrides, **named}, dlq=self.dlq)
        except RemoteError as error:
            explained = explain(self.adapter, error)
            if self.job.name is not None and isinstance(explained, AlreadySubmitted):
                explained = ConfigError(f"{explained}; {_another_name(self.adapter)}")
            raise explained from error

    def may_be_orphan(self, record: JobRecord, remote_job: Mapping[str, Any], created_at_ms: float | None) -> bool:
        """Return whether this request may have submitted a job that has its name, or reads its file.

        Others may have chosen the same name, or read the same file: their jobs are older than the intent.
        """
        created_at = created_at_ms / 1000 if created_at_ms else epoch_s(remote_job.get(self.adapter.created_member))
        skew_s = CLOCK_SKEW_S if self.job.name is None else CLOCK_SKEW_OF_NAMED_S
        is_younger = created_at is not None and created_at >= record.intended_at - skew_s
        return is_younger and self.adapter.job_status(remote_job).state not in BAD_ENDS


def _another_name(adapter: ServiceAdapter) -> str:
    return f"give another parameters.{adapter.name_parameter}"


def epoch_s(value: object) -> float | None:
    """Return a service's time as epoch seconds, None if it is none."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return None
