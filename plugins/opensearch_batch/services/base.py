"""The contract of an AI service: everything that differs between services stands behind it, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from opensearch_batch.core.job import JobRecord, Sighting

RequestLine = Callable[[bytes], bytes]


class Limits(msgspec.Struct, frozen=True):
    """What one batch job of a service takes."""

    max_records: int
    max_bytes: int
    max_record_bytes: int


class Blueprint(msgspec.Struct, frozen=True):
    """A connector file: the documented body of ``connectors/_create`` with placeholders like ``<region>``."""

    place: str
    body: dict[str, Any]


class Service(Protocol):
    """One AI service. Adapters keep no state and do no I/O."""

    name: str
    limits: Limits

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

    def job_name(self, prefix: str, job_key: str, generation: int) -> str:
        """Return the job's name at the service, the same for the same generation of a job key."""

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
