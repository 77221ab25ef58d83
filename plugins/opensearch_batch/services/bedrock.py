"""Amazon Bedrock batch inference: each line ``{recordId, modelInput}`` gets a `modelOutput` or an `error`.

The members of `modelInput` depend on the model's family. A model of another family needs `parameters.model_input`, a
template with ``<input>`` in place of the input.

Source: the Bedrock API reference (CreateModelInvocationJob) and "Format and upload your batch inference data".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec

from opensearch_batch.core.errors import ConfigError, NotFound
from opensearch_batch.core.jobs.contract import ErrorCodes, Limits, PredictionRow, RequestedInput, RequestLine
from opensearch_batch.core.jobs.line_form import ID, INPUTS, LineForm
from opensearch_batch.core.jobs.poll_policy import JobStatus
from opensearch_batch.core.types.job import JobRecord, State
from opensearch_batch.services.adapters import MIB, BaseAdapter
from opensearch_batch.services.aws import AwsJobClient, aws_job_name, plain
from opensearch_batch.services.entry import AiService, AwsConnection
from opensearch_batch.services.inputs import check_input_number, need_inputs, texts_reader, with_member
from opensearch_batch.services.parameters import need_parameters, nested_object
from opensearch_batch.services.realtime import LineBodyForm
from opensearch_batch.services.row_errors import ROW_ERRORS, prediction_row

INPUT = b"<input>"
TITAN_EMBED, COHERE_EMBED, ANTHROPIC = _FAMILIES = ("amazon.titan-embed", "cohere.embed", "anthropic.")
MODEL_INPUT = "model_input"
DEFAULT_MAX_TOKENS = 1024


# What Titan Text Embeddings V2 assumes. Source: "Amazon Titan Embeddings Text", model parameters.
TITAN_ASSUMED: Mapping[str, Any] = MappingProxyType(
    {"dimensions": 1024, "normalize": True, "embeddingTypes": ["float"]}
)


class BedrockRealtime(LineBodyForm):
    """Real-time requests: InvokeModel with the `modelInput` of a line."""

    body_member = "modelInput"

    def url_ends(self, parameters: Mapping[str, Any]) -> Sequence[str]:
        return (f"/model/{parameters['modelId']}/invoke",)

    def assumed(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        return TITAN_ASSUMED if _family(str(parameters["modelId"])) == TITAN_EMBED else {}

    def response_of(self, vectors: list[Any], parameters: Mapping[str, Any]) -> object:
        is_cohere = _family(str(parameters["modelId"])) == COHERE_EMBED
        return {"embeddings": vectors} if is_cohere else {"embedding": vectors[0]}

    def output_row(self, line: bytes, response: object) -> bytes:
        return with_member(line, "modelOutput", msgspec.json.encode(response))

    def error_row(self, line: bytes, reason: str, parameters: Mapping[str, Any]) -> bytes:  # noqa: ARG002 - always the same form
        return with_member(line, "error", msgspec.json.encode({"errorCode": 400, "errorMessage": reason}))


class BedrockAdapter(BaseAdapter):
    """The adapter for Bedrock model invocation jobs."""

    name, model_parameter = "bedrock", "modelId"
    # Source: "Quotas for Amazon Bedrock": records per job, and input file size.
    limits = Limits(max_records=50_000, max_bytes=1000 * MIB, max_record_bytes=10 * MIB, min_records=100)
    errors = ErrorCodes(
        throttle=frozenset(
            {
                "ThrottlingException",
                "TooManyRequestsException",
                "ServiceQuotaExceededException",
                "ServiceUnavailableException",
            }
        ),
        exists=frozenset({"ConflictException"}),
        # Bedrock sends error codes only in the header x-amzn-ErrorType, which ML Commons does not return.
        phrases={
            "quota": "ServiceQuotaExceededException",
            "too many requests": "ThrottlingException",
            "throttl": "ThrottlingException",
            "already": "ConflictException",
        },
    )
    batch_path = "/model-invocation-job"
    name_parameter: str | None = "jobName"
    created_member = "submitTime"
    realtime = BedrockRealtime()
    output_members = frozenset({"recordId", "modelInput", "modelOutput", "error"})
    id_member: str | None = "recordId"
    example_parameters: Mapping[str, Any] = MappingProxyType(
        {"modelId": "amazon.titan-embed-text-v2:0", "roleArn": "role"}
    )
    job_name = staticmethod(aws_job_name)
    states: ClassVar[Mapping[str, State]] = {
        "Submitted": "RUNNING",
        "Validating": "RUNNING",
        "Scheduled": "RUNNING",
        "InProgress": "RUNNING",
        "Stopping": "RUNNING",
        "Completed": "COMPLETED",
        # The rows of failed records contain an error.
        "PartiallyCompleted": "COMPLETED",
        "Failed": "FAILED",
        "Stopped": "CANCELLED",
        "Expired": "EXPIRED",
    }

    def check(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> None:
        need_parameters(parameters, "modelId", "roleArn", job="CreateModelInvocationJob")
        model, extra = self.model(parameters), _extra(parameters)
        most = None if _family(model) == COHERE_EMBED and not _is_template(extra) else 1
        need_inputs(f"bedrock {model}", inputs, most=most, remedy="map one, or choose a cohere.embed model")
        _body(model, extra)

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the region; everything else that affects predictions is in the lines of the input."""
        return {"region": parameters.get("region")}

    def request_line(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> RequestLine:
        """Return the function that creates ``{"recordId", "modelInput"}``."""
        if not _is_template(_extra(parameters)):
            return super().request_line(parameters, inputs)
        read, template = texts_reader(inputs), msgspec.json.encode(_extra(parameters))

        def line(record: bytes, record_id: str) -> bytes:
            # The input without its quotes: the placeholder may be part of a longer string.
            filled = msgspec.Raw(template.replace(INPUT, read(record)[0][1:-1]))
            return msgspec.json.encode({"recordId": record_id, "modelInput": filled})

        return line

    def line_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> LineForm | None:
        """Return the form of a line; None for a template in `model_input`, which only `request_line` fills in."""
        if _is_template(_extra(parameters)):
            return None
        body = _body(self.model(parameters), _extra(parameters))
        return LineForm.of({"recordId": ID, "modelInput": body}, inputs)

    def prediction_path(
        self, parameters: Mapping[str, Any], inputs: Sequence[str] = (), number: int | None = None
    ) -> str:
        """Return the path of the prediction in `modelOutput`; the whole `modelOutput` for an unknown model family."""
        check_input_number(inputs, number)
        paths = {
            TITAN_EMBED: "$.modelOutput.embedding",
            COHERE_EMBED: f"$.modelOutput.embeddings[{number or 0}]",
            ANTHROPIC: "$.modelOutput.content[0].text",
        }
        return paths.get(_family(self.model(parameters)), "$.modelOutput")

    def batch_predict_parameters(
        self,
        record: JobRecord,
        parameters: Mapping[str, Any],
        inputs: Sequence[str] = (),  # noqa: ARG002 - they are in the lines of the input
    ) -> dict[str, Any]:
        """Return the job's name, and the connector's data configurations with this job's locations."""
        source = nested_object(parameters, "inputDataConfig", default={}).get("s3InputDataConfig", {})
        target = nested_object(parameters, "outputDataConfig", default={}).get("s3OutputDataConfig", {})
        return {
            "jobName": record.name,
            "inputDataConfig": {"s3InputDataConfig": {**source, "s3Uri": record.input}},
            "outputDataConfig": {"s3OutputDataConfig": {**target, "s3Uri": record.output}},
        }

    def requested_input(self, parameters: Mapping[str, Any]) -> RequestedInput:
        source = nested_object(parameters, "inputDataConfig", default={}).get("s3InputDataConfig", {})
        return RequestedInput(str(source.get("s3Uri", "")))

    def is_job(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Compare jobName; a task that ML Commons has not refreshed yet has only the ARN."""
        arn = record.remote_job.get("jobArn")
        return remote_job.get("jobName") == record.name or (arn is not None and remote_job.get("jobArn") == arn)

    def job_status(self, remote_job: Mapping[str, Any]) -> JobStatus:
        """Read `status`; a task without one counts as running: ML Commons has not refreshed it yet."""
        return self.status_of(remote_job.get("status"), str(remote_job.get("message") or ""))

    def outputs(self, record: JobRecord, remote_job: Mapping[str, Any]) -> list[str]:
        """Return the object that Bedrock writes for the shard, in a folder named by the job's id."""
        job_id = str(remote_job.get("jobArn", "")).rpartition("/")[2]
        return [f"{record.output.rstrip('/')}/{job_id}/{record.input.rpartition('/')[2]}.out"]

    def row(self, row: bytes) -> PredictionRow:
        """Read recordId, and the error of a failed record."""
        return prediction_row(row, "recordId")


def _body(model: str, extra: dict[str, Any]) -> dict[str, Any]:
    """Return a model's `modelInput` with a placeholder for the inputs; raise ConfigError if the format is unknown."""
    family, texts = _family(model), msgspec.Raw(INPUTS)
    if family == TITAN_EMBED or _is_template(extra):
        return {**extra, "inputText": texts}
    if family == COHERE_EMBED:
        return {"input_type": "search_document", **extra, "texts": [texts]}
    if family == ANTHROPIC:
        fixed = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": DEFAULT_MAX_TOKENS, **extra}
        return {**fixed, "messages": [{"role": "user", "content": texts}]}
    raise ConfigError(
        f"bedrock {model}: the input format of this model is unknown; give parameters.{MODEL_INPUT} with "
        f'"{INPUT.decode()}" in place of the input'
    )


def _family(model: str) -> str:
    """Return the family of a model's id, ARN or inference profile (``us.anthropic.…``), ``""`` if unknown."""
    name = model.rpartition("/")[2]
    names = (name, name.partition(".")[2])
    return next((family for family in _FAMILIES if any(each.startswith(family) for each in names)), "")


def _is_template(extra: dict[str, Any]) -> bool:
    return INPUT in msgspec.json.encode(extra)


def _extra(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return `parameters.model_input`: a template, or members that are added to each `modelInput`."""
    return nested_object(parameters, MODEL_INPUT, default={})


class BedrockClient(AwsJobClient):
    """Client for model invocation jobs: a job is found by its name and described by its ARN."""

    live = frozenset({"Submitted", "Validating", "Scheduled", "InProgress"})
    service, throttle_codes = "Bedrock", BedrockAdapter.errors.throttle

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the newest job with the record's name, None if there is none."""
        with self.errors(record):
            pages = self.api.get_paginator("list_model_invocation_jobs").paginate(
                nameContains=record.name, sortBy="CreationTime", sortOrder="Descending"
            )
            jobs = (job for page in pages for job in page["invocationJobSummaries"])
            return next((plain(job) for job in jobs if job["jobName"] == record.name), None)

    def describe(self, record: JobRecord) -> dict[str, Any]:
        with self.errors(record):
            return plain(self.api.get_model_invocation_job(jobIdentifier=self._arn(record)))

    def cancel(self, record: JobRecord) -> None:
        with self.errors(record):
            self.api.stop_model_invocation_job(jobIdentifier=self._arn(record))

    def _arn(self, record: JobRecord) -> str:
        arn = record.remote_job.get("jobArn") or (self.find(record) or {}).get("jobArn")
        if arn is None:
            raise NotFound(f"Bedrock has no job {record.name}")
        return str(arn)


SERVICE = AiService(
    adapter=BedrockAdapter(),
    client=lambda api, objects: BedrockClient(api),  # noqa: ARG005 - nothing is uploaded
    connection=AwsConnection("bedrock"),
    row_errors=ROW_ERRORS,
)
