"""The contract of an AI service: everything that differs between services stands behind it, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from opensearch_batch.core.cluster import SERVER_ERROR, TOO_MANY
from opensearch_batch.core.errors import (
    AlreadySubmitted,
    BatchError,
    ConfigError,
    RemoteError,
    RetriableError,
    Throttled,
)
from opensearch_batch.core.job import JobRecord
from opensearch_batch.core.watch import Sighting

RequestLine = Callable[[bytes], bytes]


class Limits(msgspec.Struct, frozen=True):
    """What one batch job of a service takes."""

    max_records: int
    max_bytes: int
    max_record_bytes: int


class Service(Protocol):
    """One AI service. Adapters keep no state and do no I/O.

    `throttle_codes` are the service's error codes for "not now", `exists_codes` those for a job name that is taken.
    """

    name: str
    limits: Limits
    throttle_codes: frozenset[str]
    exists_codes: frozenset[str]

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise ConfigError when connector and request parameters together cannot make a job we can ingest."""

    def model(self, parameters: Mapping[str, Any]) -> str:
        """Return the model's name at the service, for the job key."""

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that shape predictions; names, places and machine sizes do not."""

    def request_line(self, parameters: Mapping[str, Any]) -> RequestLine:
        """Return the function that turns a record's bytes into its service-ready line.

        It raises RecordRejected for a record that lacks what the model reads.
        """

    def job_name(self, prefix: str, folder: str, generation: int) -> str:
        """Return the job's name at the service, the same for the same generation of the job in this folder."""

    def batch_predict_parameters(self, record: JobRecord, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``parameters`` of ``_batch_predict``: what this job overrides of its connector."""

    def is_task_of(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Say whether an ML Commons task's `remote_job` is this job."""

    def sighting(self, remote_job: Mapping[str, Any]) -> Sighting:
        """Read the job's state from the service's own words, exactly: ``incomplete`` is not complete."""

    def outputs(self, record: JobRecord) -> list[str]:
        """Return where the predictions of a completed job lie."""

    def row_error(self, row: bytes) -> str | None:
        """Return the service's reason when an output row is an error in place of a prediction."""


def explain(service: Service, error: RemoteError) -> BatchError:
    """Return what a service's answer means for us: not now, done before, broken there, or wrong here."""
    if error.code in service.throttle_codes or error.status == TOO_MANY:
        return Throttled(str(error))
    if error.code in service.exists_codes:
        return AlreadySubmitted(
            f"{error}; no ML Commons task leads to that job: start a run with force to submit (and pay for) a new one"
        )
    return RetriableError(str(error)) if error.status >= SERVER_ERROR else ConfigError(str(error))
