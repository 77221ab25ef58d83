"""The contract of an AI service: everything that differs between services stands behind it, and nothing else does.

A `ServiceAdapter` decides and does no I/O. A `ServiceClient` calls the service's API beside ML Commons: it uploads
files that the service keeps itself, and finds and stops jobs that ML Commons does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from opensearch_batch.core.errors import (
    AlreadySubmitted,
    BatchError,
    ConfigError,
    RemoteError,
    RetriableError,
    Throttled,
)
from opensearch_batch.core.jobs.job_records import job_key
from opensearch_batch.core.jobs.poll_policy import JobStatus
from opensearch_batch.core.opensearch.cluster import SERVER_ERROR, TOO_MANY
from opensearch_batch.core.sharding.cut import ShardLimits
from opensearch_batch.core.sharding.line_form import LineForm
from opensearch_batch.core.types.job import JobRecord

RequestLine = Callable[[bytes, str], bytes]
Answers = Literal["beside_record", "by_id", "by_position"]


class Limits(msgspec.Struct, frozen=True):
    """What one batch job of a service takes; one with fewer than `min_records` is refused.

    `max_inputs` limits the inputs of all its records together.
    """

    max_records: int
    max_bytes: int
    max_record_bytes: int
    min_records: int = 1
    max_inputs: int | None = None

    def records_at_most(self, inputs: int) -> int:
        """Return how many records with so many inputs each a job takes."""
        if self.max_inputs is None:
            return self.max_records
        return min(self.max_records, self.max_inputs // max(inputs, 1))

    def of_shard(self, max_records: int, max_bytes: int, *, inputs: int) -> ShardLimits:
        """Return where a shard is cut that somebody wants to have at most so many records and bytes."""
        # The last shard takes in what would be too few for a job of its own.
        room = self.min_records - 1
        return ShardLimits(
            min(max_records, self.records_at_most(inputs) - room),
            min(
                max_bytes, self.max_bytes - room * min(self.max_record_bytes, self.max_bytes // (10 * self.min_records))
            ),
            self.max_record_bytes,
            self.min_records,
        )


class ErrorCodes(msgspec.Struct, frozen=True):
    """What a service's own error codes mean for us; any other is a refusal, or by its status a passing failure.

    Args:
        throttle: not now; with status 429 whatever the code, unless it stands in `refuse`.
        exists: the job's name is taken.
        refuse: no later attempt helps, though the status is 429.
        words: words in an error's text and the code they stand for, where a service sends its codes in a header, which
            ML Commons does not pass on.
    """

    throttle: frozenset[str]
    exists: frozenset[str] = frozenset()
    refuse: frozenset[str] = frozenset()
    words: dict[str, str] = {}

    def code_of(self, error: RemoteError) -> str:
        """Return the code of an answer, ``""`` when it has none."""
        text = str(error).lower()
        return error.code or next((code for words, code in self.words.items() if words in text), "")


class PredictionRow(msgspec.Struct, frozen=True):
    """What one row of an output says: which record it answers (None: by its position), and the error if it is none."""

    record_id: str | None
    error: str | None = None


class ServiceAdapter(Protocol):
    """One AI service. Adapters keep no state and do no I/O.

    `parameters` are the connector's, overridden by the pipeline's. `inputs` are the paths in a record that the model
    reads, one prediction each; none leaves the choice to the connector, where the service has one there.

    `output_members` are the names at the top of an output row: a path that starts with one reads the output.
    `error_members` are those of which a row that is an error has one, as in `RowErrors`.
    `id_member` is the one that names a row's record, None where rows name none. `example_parameters` make a job of a
    model whose parameters nobody knows offline.
    """

    name: str
    limits: Limits
    errors: ErrorCodes
    output_members: frozenset[str]
    error_members: frozenset[str]
    id_member: str | None
    example_parameters: Mapping[str, Any]

    def check(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> None:
        """Raise ConfigError when connector and request parameters together cannot make a job we can ingest."""

    def model(self, parameters: Mapping[str, Any]) -> str:
        """Return the model's name at the service, for the job key."""

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that shape predictions; names, places and machine sizes do not."""

    def answers(self, parameters: Mapping[str, Any]) -> Answers:
        """Say how an output row finds its record.

        beside_record: the row holds the whole record. by_id: it names the record's id. by_position: neither, but rows
        have the order of the records.
        """

    def request_line(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> RequestLine:
        """Return the function that turns a record's bytes and id into its service-ready line, without a line end.

        It raises RecordRejected for a record that lacks what the model reads.
        """

    def line_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> LineForm | None:
        """Return how lines are made, as a value that makes the same as `request_line`; None where none can say it."""

    def prediction_path(
        self, parameters: Mapping[str, Any], inputs: Sequence[str] = (), number: int | None = None
    ) -> str:
        """Return where in an output row the prediction for input `number` stands; None: the only input's.

        Raises:
            ConfigError: there is no such input.
        """

    def job_name(self, prefix: str, folder: str, submission: int) -> str:
        """Return the job's name at the service, the same for the same submission of the job in this folder."""

    def batch_predict_parameters(
        self, record: JobRecord, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the ``parameters`` of ``_batch_predict``: what this job overrides of its connector."""

    def is_job(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Say whether a `remote_job` (ML Commons' or the service's own words) is this job."""

    def job_status(self, remote_job: Mapping[str, Any]) -> JobStatus:
        """Read the job's state from the service's own words, exactly: ``incomplete`` is not complete."""

    def outputs(self, record: JobRecord, remote_job: Mapping[str, Any]) -> list[str]:
        """Return where the rows of an ended job lie, those of its errors included.

        An S3 URI that ends with ``/`` stands for the ``.out`` objects below it.
        """

    def row(self, row: bytes) -> PredictionRow:
        """Read of an output row which record it answers, and the service's reason when it is an error."""


# The adapter of a service by its name; raises ConfigError for a name that nobody knows.
AdapterOf = Callable[[str], ServiceAdapter]


class ServiceClient(Protocol):
    """Our own way to a service's API. Only `stage` is needed on the straight road, and only where files are uploaded.

    All raise RetriableError when the service stays away (Throttled: not now), ConfigError when it refuses us.
    """

    def stage(self, uri: str, name: str) -> dict[str, str]:
        """Bring a shard's file where the job will read it; return what names it there, ``{}`` when that is S3."""

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Remove what `stage` uploaded; nothing happens where nothing is."""

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the `remote_job` of a job that the service accepted though nobody heard of it, None for none."""

    def describe(self, record: JobRecord) -> dict[str, Any]:
        """Return the `remote_job` of a job, as the service describes it now.

        Raises:
            NotFound: the service knows no such job.
        """

    def stop(self, record: JobRecord) -> None:
        """Cancel a job; one that has ended is left as it is."""


def job_keys(
    adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
) -> Callable[[str], str]:
    """Return the function that makes the job key of a shard's content digest."""
    identity, model = {**adapter.identity(parameters), "inputs": list(inputs)}, adapter.model(parameters)
    return lambda content: job_key(adapter.name, model, identity, content)


def explain(adapter: ServiceAdapter, error: RemoteError) -> BatchError:
    """Return what a service's answer means for us: not now, done before, broken there, or wrong here."""
    codes = adapter.errors
    code = codes.code_of(error)
    if code in codes.throttle or (error.status == TOO_MANY and code not in codes.refuse):
        return Throttled(str(error))
    if code in codes.exists:
        return AlreadySubmitted(str(error))
    return RetriableError(str(error)) if error.status >= SERVER_ERROR else ConfigError(str(error))
