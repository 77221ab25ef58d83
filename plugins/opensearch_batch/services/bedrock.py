"""Amazon Bedrock batch inference: ``{recordId, modelInput}`` a line in, the same with `modelOutput` or `error` out.

Source: the Bedrock API reference (CreateModelInvocationJob) and "Format and upload your batch inference data". What
stands in `modelInput` is each model's own affair; models of families not known here take `parameters.model_input` with
``<input>`` where the input goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.contract import Answers, ErrorCodes, Limits, PredictionRow, RequestLine
from opensearch_batch.core.jobs.poll_policy import JobStatus
from opensearch_batch.core.sharding.line_form import ID, INPUTS, LineForm
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.job import JobRecord, State
from opensearch_batch.services.inputs import check_number, need_inputs, texts_line, texts_reader
from opensearch_batch.services.parameters import nested_object
from opensearch_batch.services.row_errors import provider_error

MIB = 1 << 20
MAX_NAME_CHARS = 63
INPUT = b"<input>"
TITAN_EMBED, COHERE_EMBED, ANTHROPIC = _FAMILIES = ("amazon.titan-embed", "cohere.embed", "anthropic.")
MODEL_INPUT = "model_input"
DEFAULT_MAX_TOKENS = 1024
_STATES: dict[str, State] = {
    "Submitted": "RUNNING",
    "Validating": "RUNNING",
    "Scheduled": "RUNNING",
    "InProgress": "RUNNING",
    "Stopping": "RUNNING",
    "Completed": "COMPLETED",
    # The rows say which records failed.
    "PartiallyCompleted": "COMPLETED",
    "Failed": "FAILED",
    "Stopped": "CANCELLED",
    "Expired": "EXPIRED",
}


class _Row(msgspec.Struct):
    recordId: str | None = None  # noqa: N815 - the service's name


class Bedrock:
    """The adapter for Bedrock model invocation jobs."""

    name = "bedrock"
    # Source: "Quotas for Amazon Bedrock": records a job, and input file size.
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
        # Its codes stand in the header x-amzn-ErrorType alone.
        words={
            "quota": "ServiceQuotaExceededException",
            "too many requests": "ThrottlingException",
            "throttl": "ThrottlingException",
            "already": "ConflictException",
        },
    )
    output_members = frozenset({"recordId", "modelInput", "modelOutput", "error"})
    id_member: str | None = "recordId"
    example_parameters: Mapping[str, Any] = MappingProxyType(
        {"modelId": "amazon.titan-embed-text-v2:0", "roleArn": "role"}
    )

    def check(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> None:
        """Raise ConfigError unless model, role and inputs can make a job."""
        for needed in ("modelId", "roleArn"):
            if needed not in parameters:
                raise ConfigError(f"connector parameters.{needed} is missing; CreateModelInvocationJob needs it")
        model, extra = self.model(parameters), _extra(parameters)
        most = None if _family(model) == COHERE_EMBED and not _is_template(extra) else 1
        need_inputs(f"bedrock {model}", inputs, most=most, remedy="map one, or choose a cohere.embed model")
        _body(model, extra)

    def model(self, parameters: Mapping[str, Any]) -> str:
        """Return modelId."""
        return str(parameters["modelId"])

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the region; all else that shapes predictions stands in the input's lines."""
        return {"region": parameters.get("region")}

    def answers(self, parameters: Mapping[str, Any]) -> Answers:  # noqa: ARG002 - rows always name their record
        """Say that a row names its record."""
        return "by_id"

    def request_line(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> RequestLine:
        """Return the function that makes ``{"recordId", "modelInput"}``."""
        form = self.line_form(parameters, inputs)
        if form is not None:
            return texts_line(form)
        read, template = texts_reader(inputs), msgspec.json.encode(_extra(parameters))

        def line(record: bytes, record_id: str) -> bytes:
            # Within the quotes of a JSON text, so that it may be a part of a longer one.
            filled = msgspec.Raw(template.replace(INPUT, read(record)[0][1:-1]))
            return msgspec.json.encode({"recordId": record_id, "modelInput": filled})

        return line

    def line_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> LineForm | None:
        """Return how a line is made; where `model_input` says it, only it can."""
        if _is_template(_extra(parameters)):
            return None
        body = _body(self.model(parameters), _extra(parameters))
        return LineForm.of({"recordId": ID, "modelInput": body}, inputs)

    def prediction_path(
        self, parameters: Mapping[str, Any], inputs: Sequence[str] = (), number: int | None = None
    ) -> str:
        """Return where in `modelOutput` the model's family puts its prediction; all of it for an unknown one.

        Raises:
            ConfigError: there is no such input.
        """
        check_number(inputs, number)
        paths = {
            TITAN_EMBED: "$.modelOutput.embedding",
            COHERE_EMBED: f"$.modelOutput.embeddings[{number or 0}]",
            ANTHROPIC: "$.modelOutput.content[0].text",
        }
        return paths.get(_family(self.model(parameters)), "$.modelOutput")

    def job_name(self, prefix: str, folder: str, submission: int) -> str:
        """Return a jobName: letters, digits and hyphens, at most 63; the folder, work prefix included, stands in it."""
        tail = f"-{digest(folder)}-{submission}"
        head = "".join(c if c.isascii() and c.isalnum() else "-" for c in prefix)[: MAX_NAME_CHARS - len(tail)]
        return (head.strip("-") or "job") + tail

    def batch_predict_parameters(
        self,
        record: JobRecord,
        parameters: Mapping[str, Any],
        inputs: Sequence[str] = (),  # noqa: ARG002 - they stand in the file
    ) -> dict[str, Any]:
        """Return the job's name, and its places in the connector's configurations."""
        source = nested_object(parameters, "inputDataConfig", default={}).get("s3InputDataConfig", {})
        target = nested_object(parameters, "outputDataConfig", default={}).get("s3OutputDataConfig", {})
        return {
            "jobName": record.name,
            "inputDataConfig": {"s3InputDataConfig": {**source, "s3Uri": record.input}},
            "outputDataConfig": {"s3OutputDataConfig": {**target, "s3Uri": record.output}},
        }

    def is_job(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Compare by jobName; a task that ML Commons has not refreshed yet has the ARN alone, as has our own record."""
        known = record.remote_job.get("jobArn")
        return remote_job.get("jobName") == record.name or (known is not None and remote_job.get("jobArn") == known)

    def job_status(self, remote_job: Mapping[str, Any]) -> JobStatus:
        """Read status; a task ML Commons has not refreshed yet has none and is running."""
        status = str(remote_job.get("status"))
        return JobStatus(_STATES.get(status, "RUNNING"), str(remote_job.get("message") or ""))

    def outputs(self, record: JobRecord, remote_job: Mapping[str, Any]) -> list[str]:
        """Return the one object Bedrock writes for the shard, below a folder named by the job's id."""
        job_id = str(remote_job.get("jobArn", "")).rpartition("/")[2]
        return [f"{record.output.rstrip('/')}/{job_id}/{record.input.rpartition('/')[2]}.out"]

    def row(self, row: bytes) -> PredictionRow:
        """Read recordId, and the error in place of a modelOutput."""
        try:
            name = msgspec.json.decode(row, type=_Row).recordId
        except (msgspec.DecodeError, UnicodeDecodeError):
            return PredictionRow(None, "the row is no JSON object")
        return PredictionRow(name, provider_error(row))


def _body(model: str, extra: dict[str, Any]) -> dict[str, Any]:
    """Return the `modelInput` of a model, with a mark for its inputs.

    Raises:
        ConfigError: how this model takes its input is not known, and `model_input` does not say.
    """
    family, texts = _family(model), msgspec.Raw(INPUTS)
    if family == TITAN_EMBED or _is_template(extra):
        return {**extra, "inputText": texts}
    if family == COHERE_EMBED:
        return {"input_type": "search_document", **extra, "texts": [texts]}
    if family == ANTHROPIC:
        fixed = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": DEFAULT_MAX_TOKENS, **extra}
        return {**fixed, "messages": [{"role": "user", "content": texts}]}
    raise ConfigError(
        f"bedrock {model}: how this model takes its input is not known here; give parameters.{MODEL_INPUT} with the "
        f'text "{INPUT.decode()}" where the input goes'
    )


def _family(model: str) -> str:
    """Return the known family of a model's id, of its ARN, or of an inference profile's (``us.anthropic.…``)."""
    name = model.rpartition("/")[2]
    names = (name, name.partition(".")[2])
    return next((family for family in _FAMILIES if any(each.startswith(family) for each in names)), "")


def _is_template(extra: dict[str, Any]) -> bool:
    return INPUT in msgspec.json.encode(extra)


def _extra(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return nested_object(parameters, MODEL_INPUT, default={})
