"""OpenAI's Batch API: from an uploaded file of requests, a batch creates a file of responses and a file of errors.

Rows are in any order; `custom_id` names the request. An expired batch keeps its responses, which are paid for: if it
has an output file, it counts as completed, and `repair` submits the remaining records again. A cancelled batch counts
as cancelled in any case.

Source: OpenAI's API reference (Batch, Files), and the connector of "Batch predict" in the OpenSearch documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.contract import ErrorCodes, Limits, PredictionRow, RequestedInput
from opensearch_batch.core.jobs.line_form import ID, INPUTS, LineForm
from opensearch_batch.core.jobs.poll_policy import JobStatus
from opensearch_batch.core.types.job import JobRecord, State
from opensearch_batch.services.adapters import MIB, BaseAdapter
from opensearch_batch.services.inputs import check_input_number, need_inputs
from opensearch_batch.services.parameters import need_parameters, nested_object
from opensearch_batch.services.realtime import LineBodyForm, member
from opensearch_batch.services.row_errors import prediction_row

EMBEDDINGS, CHAT = "/v1/embeddings", "/v1/chat/completions"
ASSUMED: Mapping[str, Any] = MappingProxyType({"encoding_format": "float"})
FILE = "input_file_id"
SCHEME = "openai"


class OpenAIRealtime(LineBodyForm):
    """Real-time requests: the body of a line, sent to the line's own endpoint."""

    body_member = "body"

    def url_ends(self, parameters: Mapping[str, Any]) -> Sequence[str]:
        return (_endpoint(parameters),)

    def assumed(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        return ASSUMED if _endpoint(parameters) == EMBEDDINGS else {}

    def response_of(self, vectors: list[Any], parameters: Mapping[str, Any]) -> object:
        data = [{"object": "embedding", "index": n, "embedding": each} for n, each in enumerate(vectors)]
        return {"object": "list", "data": data, "model": parameters["model"]}

    def output_row(self, line: bytes, response: object) -> bytes:
        return _row(line, 200, response)

    def error_row(self, line: bytes, reason: str, parameters: Mapping[str, Any]) -> bytes:  # noqa: ARG002 - always the same form
        return _row(line, 400, {"error": {"message": reason}})


def _row(line: bytes, status: int, body: object) -> bytes:
    response = {"status_code": status, "body": body}
    return msgspec.json.encode({"custom_id": member(line, "custom_id"), "response": response, "error": None})


class OpenAIAdapter(BaseAdapter):
    """The adapter for OpenAI batches of embeddings and chat completions."""

    name = "openai"
    # Source: "Batch API", rate limits: requests per batch, embedding inputs per batch, bytes per file.
    limits = Limits(max_records=50_000, max_bytes=200 * MIB, max_record_bytes=10 * MIB, max_inputs=50_000)
    errors = ErrorCodes(
        throttle=frozenset({"rate_limit_exceeded", "token_limit_exceeded", "batch_limit_exceeded"}),
        refuse=frozenset({"insufficient_quota"}),
    )
    batch_path = "/batches"
    realtime = OpenAIRealtime()
    output_members = frozenset({"custom_id", "response", "error"})
    id_member: str | None = "custom_id"
    example_parameters: Mapping[str, Any] = MappingProxyType({"model": "model"})
    states: ClassVar[Mapping[str, State]] = {
        "validating": "RUNNING",
        "in_progress": "RUNNING",
        "finalizing": "RUNNING",
        "cancelling": "RUNNING",
        "completed": "COMPLETED",
        "failed": "FAILED",
        "expired": "EXPIRED",
        "cancelled": "CANCELLED",
    }

    def check(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> None:
        need_parameters(parameters, "model", job="a batch")
        endpoint = _endpoint(parameters)
        need_inputs(f"openai {endpoint}", inputs, most=None if endpoint == EMBEDDINGS else 1)
        _extra(parameters)

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the endpoint; everything else that affects predictions is in the lines of the input."""
        return {"endpoint": _endpoint(parameters)}

    def line_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> LineForm:
        endpoint, texts = _endpoint(parameters), msgspec.Raw(INPUTS)
        content = {"input": [texts]} if endpoint == EMBEDDINGS else {"messages": [{"role": "user", "content": texts}]}
        body = {"model": self.model(parameters), **_extra(parameters), **content}
        return LineForm.of({"custom_id": ID, "method": "POST", "url": endpoint, "body": body}, inputs)

    def prediction_path(
        self, parameters: Mapping[str, Any], inputs: Sequence[str] = (), number: int | None = None
    ) -> str:
        check_input_number(inputs, number)
        if _endpoint(parameters) == EMBEDDINGS:
            return f"$.response.body.data[{number or 0}].embedding"
        return "$.response.body.choices[0].message.content"

    def job_name(self, prefix: str, folder: str, submission: int) -> str:
        """Return a descriptive name; a batch is identified by its file."""
        return f"{prefix}-{folder.rstrip('/').rpartition('/')[2]}-{submission}"

    def batch_predict_parameters(
        self,
        record: JobRecord,
        parameters: Mapping[str, Any],
        inputs: Sequence[str] = (),  # noqa: ARG002 - they are in the lines of the input
    ) -> dict[str, Any]:
        return {FILE: record.staged[FILE], "endpoint": _endpoint(parameters)}

    def requested_input(self, parameters: Mapping[str, Any]) -> RequestedInput:
        return RequestedInput(staged={FILE: str(parameters[FILE])} if parameters.get(FILE) else {})

    def is_job(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Compare by the file, which was uploaded for this job only."""
        return FILE in record.staged and remote_job.get(FILE) == record.staged[FILE]

    def job_status(self, remote_job: Mapping[str, Any]) -> JobStatus:
        """Read status; an expired batch with an output file counts as completed."""
        status = self.status_of(remote_job.get("status"), _reason(remote_job))
        if status.state == "EXPIRED" and remote_job.get("output_file_id"):
            return JobStatus("COMPLETED", f"expired, with {_counts(remote_job)}")
        if status.state == "COMPLETED" and not (remote_job.get("output_file_id") or remote_job.get("error_file_id")):
            return JobStatus("FAILED", "completed, but without an output file")
        return status

    def outputs(self, record: JobRecord, remote_job: Mapping[str, Any]) -> list[str]:  # noqa: ARG002 - the job contains them
        files = (remote_job.get("output_file_id"), remote_job.get("error_file_id"))
        return [f"{SCHEME}://{file_id}" for file_id in files if file_id]

    def row(self, row: bytes) -> PredictionRow:
        """Read custom_id, and the error of a failed request."""
        return prediction_row(row, "custom_id")


def _endpoint(parameters: Mapping[str, Any]) -> str:
    endpoint = str(parameters.get("endpoint", EMBEDDINGS))
    if endpoint not in {EMBEDDINGS, CHAT}:
        raise ConfigError(f"connector parameters.endpoint is {endpoint!r}; only {EMBEDDINGS} and {CHAT} are supported")
    return endpoint


def _extra(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return `parameters.body`, whose members are added to the body of each request."""
    return nested_object(parameters, "body", default={})


def _reason(remote_job: Mapping[str, Any]) -> str:
    errors = remote_job.get("errors")
    entries = errors.get("data") if isinstance(errors, dict) else None
    texts = [str(error.get("message")) for error in entries or [] if isinstance(error, dict)]
    return "; ".join(texts[:3])


def _counts(remote_job: Mapping[str, Any]) -> str:
    counts = remote_job.get("request_counts") or {}
    # ML Commons 2.19 writes integers as 3.0.
    return f"{int(counts.get('completed') or 0)} of {int(counts.get('total') or 0)} requests done"
