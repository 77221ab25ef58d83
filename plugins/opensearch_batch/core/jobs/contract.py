"""The interfaces to an AI service: everything that differs between services.

A `ServiceAdapter` contains the rules of a service and does no I/O. A `ServiceClient` calls the service's API directly:
it uploads files to services that store their input themselves, and finds and stops jobs that ML Commons does not know.
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
from opensearch_batch.core.jobs.line_form import ContentForm
from opensearch_batch.core.jobs.poll_policy import JobStatus
from opensearch_batch.core.opensearch.cluster import SERVER_ERROR, TOO_MANY
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.predict_response import PredictResponse
from opensearch_batch.core.types.shard_limits import ShardLimits

# The member of a job's `remote_job` with the locations of rows that real-time requests returned.
REALTIME_OUTPUTS = "realtime_outputs"
RequestLine = Callable[[bytes, str], bytes]
RowMatching = Literal["beside_record", "by_id", "by_position"]


class Limits(msgspec.Struct, frozen=True):
    """Limits of one batch job; the service rejects a job with fewer than `min_records`.

    `max_inputs` limits the inputs of all records of the job together.
    """

    max_records: int
    max_bytes: int
    max_record_bytes: int
    min_records: int = 1
    max_inputs: int | None = None

    def records_at_most(self, inputs: int) -> int:
        """Return the maximum number of records in a job if each has this number of inputs."""
        if self.max_inputs is None:
            return self.max_records
        return min(self.max_records, self.max_inputs // max(inputs, 1))

    def of_shard(self, max_records: int, max_bytes: int, *, inputs: int) -> ShardLimits:
        """Return the limits of a shard: the given ones, lowered to the limits of a job."""
        # The last shard also gets the remaining records if they are too few for a job.
        reserve = self.min_records - 1
        return ShardLimits(
            min(max_records, self.records_at_most(inputs) - reserve),
            min(
                max_bytes,
                self.max_bytes - reserve * min(self.max_record_bytes, self.max_bytes // (10 * self.min_records)),
            ),
            self.max_record_bytes,
            self.min_records,
        )


class RequestedInput(msgspec.Struct, frozen=True):
    """The input of a job whose parameters a user chose: the prefix of objects on S3, or the ids of uploaded files.

    Without either, what the service will read cannot be known.
    """

    prefix: str = ""
    staged: dict[str, str] = {}


class ErrorCodes(msgspec.Struct, frozen=True):
    """Meanings of a service's error codes. Any other code is a temporary failure with status 5xx, else a refusal.

    Args:
        throttle: the service throttles; so does status 429 with any code that is not in `refuse`.
        exists: the job's name is taken.
        refuse: no later attempt succeeds, although the status is 429.
        phrases: maps phrases in an error's text to codes, for a service that sends its codes in a header, because ML
            Commons does not return headers.
    """

    throttle: frozenset[str]
    exists: frozenset[str] = frozenset()
    refuse: frozenset[str] = frozenset()
    phrases: dict[str, str] = {}


class PredictionRow(msgspec.Struct, frozen=True):
    """One output row: the id of its record (None if the order of the rows identifies it), and its error, if any."""

    record_id: str | None
    error: str | None = None


class RealtimeForm(Protocol):
    """How a line of a job is sent in one ``_predict`` request, and its response becomes the line's output row.

    `parameters` and `inputs` are those of `ServiceAdapter`.
    """

    def url_ends(self, parameters: Mapping[str, Any]) -> Sequence[str]:
        """Return the ends of the URLs that return the same predictions as a job."""

    def assumed(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the members of a body that the service assumes if they are absent."""

    def body(self, line: bytes, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> object:
        """Return the body for a line; raise RecordRejected if the line has none."""

    def row(
        self, line: bytes, response: PredictResponse, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
    ) -> bytes:
        """Return the output row of a line; raise RecordRejected if the response has not the expected form."""

    def error_row(self, line: bytes, reason: str, parameters: Mapping[str, Any]) -> bytes:
        """Return the output row of a line that the model refuses."""


class ServiceAdapter(Protocol):
    """What differs between AI services. Adapters have no state and do no I/O.

    `parameters` are the connector's, overridden by the pipeline's. `inputs` are the paths in a record that the model
    reads, with one prediction for each; if there are none, the connector names the input.

    Attributes:
        output_members: top-level names of an output row; a path that starts with one of them reads the output.
        input_members: top-level names that a service-ready line may have besides those of its record.
        id_member: the member with the id of a row's record; None if rows have no id.
        example_parameters: parameters of a valid job, for a check without a cluster.
        batch_path: end of the URL that a connector calls to submit a job.
        realtime: how lines are sent in real time; None if the service cannot do that.
        name_parameter: the parameter with the job's name; None if jobs have no names.
        created_member: the member of a job's description with the time of its creation.
    """

    name: str
    limits: Limits
    errors: ErrorCodes
    output_members: frozenset[str]
    input_members: frozenset[str]
    id_member: str | None
    example_parameters: Mapping[str, Any]
    batch_path: str
    name_parameter: str | None
    created_member: str

    @property
    def realtime(self) -> RealtimeForm | None:
        """How lines are sent in real time."""

    def check(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> None:
        """Raise ConfigError unless the output of a job with these parameters and inputs can be ingested."""

    def model(self, parameters: Mapping[str, Any]) -> str:
        """Return the model's name, for the job key."""

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that affect predictions, without names, locations and machine sizes."""

    def row_matching(self, parameters: Mapping[str, Any]) -> RowMatching:
        """Return how an output row is matched with its record.

        beside_record: the row contains the whole record. by_id: the row has the record's id. by_position: the rows
        have the order of the records.
        """

    def request_line(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> RequestLine:
        """Return the function that converts a record's bytes and id into its service-ready line, without a line end.

        The function raises RecordRejected for a record without the model's input.
        """

    def content_reader(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> Callable[[bytes], bytes]:
        """Return the function from a record to JSON text of what the model reads of it, for its content key.

        The function raises RecordRejected for a record that `request_line` rejects.
        """

    def content_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> ContentForm | None:
        """Return the form of what `content_reader` reads, to read many records at once; None if it has none."""

    def line_bytes(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> Callable[[bytes, bytes], int]:
        """Return the function from a record, and what `content_reader` reads of it, to the size of its line."""

    def prediction_path(
        self, parameters: Mapping[str, Any], inputs: Sequence[str] = (), number: int | None = None
    ) -> str:
        """Return a prediction's path in an output row (None: the only input's); raise ConfigError for no such input."""

    def job_name(self, prefix: str, folder: str, submission: int) -> str:
        """Return the job's name at the service, which differs for each submission of the job in this folder."""

    def batch_predict_parameters(
        self, record: JobRecord, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the ``parameters`` of ``_batch_predict`` that this job sets in place of the connector's."""

    def requested_input(self, parameters: Mapping[str, Any]) -> RequestedInput:
        """Return the input that a user's parameters of ``_batch_predict`` name."""

    def is_job(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Return whether a `remote_job` from ML Commons or the service is this job."""

    def job_status(self, remote_job: Mapping[str, Any]) -> JobStatus:
        """Return the job's status. Compare whole names of states: ``incomplete`` contains ``complete``."""

    def outputs(self, record: JobRecord, remote_job: Mapping[str, Any]) -> list[str]:
        """Return the locations of an ended job's rows, including error rows.

        An S3 URI that ends with ``/`` means the ``.out`` objects below it.
        """

    def row(self, row: bytes) -> PredictionRow:
        """Read the record's id and the service's error from an output row."""


# Returns the adapter of the service of this name; raises ConfigError if there is none.
AdapterOf = Callable[[str], ServiceAdapter]


class ServiceClient(Protocol):
    """Calls a service's API. On the happy path only `stage` is called, and only for services that store input files.

    All methods raise RetriableError when the service does not answer or fails, Throttled when it throttles, and
    ConfigError when it refuses the key or the call.
    """

    def stage(self, uri: str, name: str) -> dict[str, str]:
        """Upload a shard's file if the service stores input files; return the identifiers of the upload, or ``{}``."""

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Delete the file that `stage` uploaded, if it exists."""

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the `remote_job` of an orphan (an accepted job whose response was lost), None if there is none."""

    def describe(self, record: JobRecord) -> dict[str, Any]:
        """Return the current `remote_job` of a job; raise NotFound if the service does not know it."""

    def stop(self, record: JobRecord) -> None:
        """Cancel a job, unless it has ended."""


def job_keys(
    adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
) -> Callable[[str], str]:
    """Return the function from a shard's content digest to its job key."""
    identity, model = {**adapter.identity(parameters), "inputs": list(inputs)}, adapter.model(parameters)
    return lambda content: job_key(adapter.name, model, identity, content)


def output_uris(adapter: ServiceAdapter, record: JobRecord, remote_job: Mapping[str, Any]) -> list[str]:
    """Return the locations of an ended job's rows; those of real-time requests are named in `remote_job`."""
    written = remote_job.get(REALTIME_OUTPUTS)
    return adapter.outputs(record, remote_job) if written is None else list(written)


def check_connector(adapter: ServiceAdapter, connector: Mapping[str, Any]) -> None:
    """Raise ConfigError if a connector submits its jobs to another service."""
    for action in connector.get("actions", ()):
        url = str(action.get("url", "")).partition("?")[0]
        if action.get("action_type") == "batch_predict" and not url.endswith(adapter.batch_path):
            raise ConfigError(
                f"connector {connector.get('name', '')!r} submits jobs to {url}, but a URL of {adapter.name} "
                f"ends in {adapter.batch_path}; change service or connector"
            )


def explain(adapter: ServiceAdapter, error: RemoteError) -> BatchError:
    """Convert a service's error to a `BatchError`: throttled, already submitted, temporary, or misconfigured."""
    codes, text = adapter.errors, str(error).lower()
    code = error.code or next((code for phrase, code in codes.phrases.items() if phrase in text), "")
    if code in codes.throttle or (error.status == TOO_MANY and code not in codes.refuse):
        return Throttled(str(error))
    if code in codes.exists:
        return AlreadySubmitted(str(error))
    return RetriableError(str(error)) if error.status >= SERVER_ERROR else ConfigError(str(error))
