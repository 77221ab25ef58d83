"""Cohere's Embed Jobs: from an uploaded dataset of texts, a job creates a dataset of the texts with their embeddings.

A row has one text, so a record has one input: several inputs would need several rows. The record's id is a field that
the job copies to its output. A row has no member for an error: a failed row has no embeddings.

Source: Cohere's API reference (Datasets, Embed Jobs), and its Python package for the parts of a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.contract import ErrorCodes, Limits, PredictionRow, RealtimeForm, RequestedInput
from opensearch_batch.core.jobs.line_form import ID, INPUTS, LineForm
from opensearch_batch.core.jobs.poll_policy import JobStatus
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.job import JobRecord, State
from opensearch_batch.core.types.predict_response import PredictResponse
from opensearch_batch.core.types.record_ids import RECORD_ID
from opensearch_batch.services.adapters import MIB, BaseAdapter
from opensearch_batch.services.inputs import check_input_number, need_inputs, with_member
from opensearch_batch.services.parameters import need_parameters, nested
from opensearch_batch.services.realtime import first_prediction, member

DATASET = "dataset_id"
SCHEME = "cohere"
NO_EMBEDDINGS = "the row has no embeddings"
OPTIONS = ("input_type", "embedding_types", "truncate")
ASSUMED: Mapping[str, Any] = MappingProxyType({"embedding_types": ["float"], "truncate": "END"})


class _Embeddings(msgspec.Struct):
    float: msgspec.Raw = msgspec.Raw()
    int8: msgspec.Raw = msgspec.Raw()
    uint8: msgspec.Raw = msgspec.Raw()
    binary: msgspec.Raw = msgspec.Raw()
    ubinary: msgspec.Raw = msgspec.Raw()


class _Row(msgspec.Struct):
    record_id: str | None = None
    embeddings: _Embeddings | None = None
    # Only rows of real-time requests have a reason.
    error: str | None = None


class CohereRealtime(RealtimeForm):
    """Real-time requests: call Embed, in version 1 or 2 of the API, with the text of a line."""

    def url_ends(self, parameters: Mapping[str, Any]) -> Sequence[str]:  # noqa: ARG002 - always the same
        return ("/v1/embed", "/v2/embed")

    def assumed(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 - always the same
        return ASSUMED

    def body(self, line: bytes, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> object:  # noqa: ARG002 - always one
        """Return the text of the line with the options of a job."""
        options = {name: nested(parameters, name) for name in OPTIONS if parameters.get(name) is not None}
        return {"texts": [member(line, "text")], "model": parameters["model"], **options}

    def row(
        self,
        line: bytes,
        response: PredictResponse,
        parameters: Mapping[str, Any],
        inputs: Sequence[str] = (),  # noqa: ARG002 - always one
    ) -> bytes:
        """Return the line with its embedding; a response of only vectors has the job's embedding type."""
        kind, body = _embedding_type(parameters), response.response
        embeddings = body.get("embeddings") if isinstance(body, dict) else response.vectors
        values = embeddings.get(kind) if isinstance(embeddings, dict) else embeddings
        return with_member(line, "embeddings", msgspec.json.encode({kind: first_prediction(values)}))

    def error_row(self, line: bytes, reason: str, parameters: Mapping[str, Any]) -> bytes:  # noqa: ARG002 - always the same form
        return with_member(line, "error", msgspec.json.encode(reason))


class CohereAdapter(BaseAdapter):
    """The adapter for Cohere embed jobs."""

    name = "cohere"
    # Source: "Embed Jobs API": at most 100,000 texts a job, and a dataset file of 1.5 GB.
    limits = Limits(max_records=100_000, max_bytes=1_500_000_000, max_record_bytes=MIB)
    errors = ErrorCodes(throttle=frozenset({"too_many_requests"}))
    batch_path = "/embed-jobs"
    name_parameter: str | None = "name"
    realtime = CohereRealtime()
    output_members = frozenset({"embeddings"})
    id_member: str | None = RECORD_ID
    example_parameters: Mapping[str, Any] = MappingProxyType({"model": "model"})
    states: ClassVar[Mapping[str, State]] = {
        "processing": "RUNNING",
        "cancelling": "RUNNING",
        "complete": "COMPLETED",
        "cancelled": "CANCELLED",
        "failed": "FAILED",
    }

    def check(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> None:
        need_parameters(parameters, "model", job="an embed job")
        need_inputs("cohere", inputs, most=1)
        _embedding_type(parameters)

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {name: nested(parameters, name) for name in OPTIONS}

    def line_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> LineForm:  # noqa: ARG002 - a dataset does not contain the model
        return LineForm.of({"text": msgspec.Raw(INPUTS), RECORD_ID: ID}, inputs)

    def prediction_path(
        self, parameters: Mapping[str, Any], inputs: Sequence[str] = (), number: int | None = None
    ) -> str:
        """Return the path of the embedding, which depends on the job's embedding type."""
        check_input_number(inputs, number)
        return f"$.embeddings.{_embedding_type(parameters)}"

    def job_name(self, prefix: str, folder: str, submission: int) -> str:
        return f"{prefix}-{digest(folder)}-{submission}"

    def batch_predict_parameters(
        self,
        record: JobRecord,
        parameters: Mapping[str, Any],  # noqa: ARG002 - the connector's own are not overridden
        inputs: Sequence[str] = (),  # noqa: ARG002 - they are in the dataset
    ) -> dict[str, Any]:
        return {DATASET: record.staged[DATASET], "name": record.name}

    def requested_input(self, parameters: Mapping[str, Any]) -> RequestedInput:
        return RequestedInput(staged={DATASET: str(parameters[DATASET])} if parameters.get(DATASET) else {})

    def is_job(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Compare the job ids, then the datasets; an ML Commons task that was not refreshed yet has only the id."""
        job_id = record.remote_job.get("job_id")
        if job_id is not None and remote_job.get("job_id") == job_id:
            return True
        staged = record.staged.get(DATASET)
        return staged is not None and remote_job.get("input_dataset_id") == staged

    def job_status(self, remote_job: Mapping[str, Any]) -> JobStatus:
        """Read the status; a complete job without an output dataset has failed."""
        status = self.status_of(remote_job.get("status"), str(remote_job.get("error") or ""))
        if status.state == "COMPLETED" and not remote_job.get("output_dataset_id"):
            return JobStatus("FAILED", "complete, but without an output dataset")
        return status

    def outputs(self, record: JobRecord, remote_job: Mapping[str, Any]) -> list[str]:  # noqa: ARG002 - the job contains it
        dataset = remote_job.get("output_dataset_id")
        return [f"{SCHEME}://{dataset}"] if dataset else []

    def row(self, row: bytes) -> PredictionRow:
        """Read the record's id; a row without embeddings is an error."""
        try:
            decoded = msgspec.json.decode(row, type=_Row)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return PredictionRow(None, "the row is not a valid JSON object")
        values = [] if decoded.embeddings is None else msgspec.structs.astuple(decoded.embeddings)
        has_any = any(bytes(value) not in (b"", b"null") for value in values)
        return PredictionRow(decoded.record_id, None if has_any else decoded.error or NO_EMBEDDINGS)


def _embedding_type(parameters: Mapping[str, Any]) -> str:
    """Return the type of the job's embeddings; raise ConfigError unless there is exactly one."""
    types = nested(parameters, "embedding_types", default=["float"])
    if not isinstance(types, list) or len(types) != 1 or types[0] not in _Embeddings.__struct_fields__:
        known = ", ".join(_Embeddings.__struct_fields__)
        raise ConfigError(
            f"connector parameters.embedding_types must be a list with exactly one of {known}; found {types!r}"
        )
    return str(types[0])
