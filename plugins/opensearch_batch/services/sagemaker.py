"""Amazon SageMaker batch transform: one input object per shard, one ``.out`` object with rows in the same order.

With ``JoinSource: Input`` an output row is the record plus ``SageMakerOutput``, so no join is needed. Without it a row
is only the prediction, which belongs to the record at the same position. An InputFilter selects one value for the
model, so several inputs of a record are copied into an additional member, `model_inputs`.

Source: the SageMaker API reference (CreateTransformJob) and the connector of "Using an OpenSearch Ingestion pipeline
with machine learning offline batch inference".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec

from opensearch_batch.core.errors import ConfigError, NotFound, RecordRejected
from opensearch_batch.core.formats.json_text import check_json
from opensearch_batch.core.jobs.contract import (
    ErrorCodes,
    Limits,
    PredictionRow,
    RealtimeForm,
    RequestedInput,
    RequestLine,
    RowMatching,
)
from opensearch_batch.core.jobs.line_form import ContentForm
from opensearch_batch.core.jobs.poll_policy import JobStatus
from opensearch_batch.core.transform.json_path import PlainPath
from opensearch_batch.core.types.job import JobRecord, State
from opensearch_batch.core.types.predict_response import PredictResponse
from opensearch_batch.services.adapters import MIB, BaseAdapter
from opensearch_batch.services.aws import AwsJobClient, aws_job_name, plain
from opensearch_batch.services.entry import AiService, AwsConnection
from opensearch_batch.services.inputs import check_input_number, inputs_reader, with_member
from opensearch_batch.services.parameters import need_parameters, nested, nested_object
from opensearch_batch.services.realtime import first_prediction
from opensearch_batch.services.row_errors import ROW_ERRORS, sagemaker_error

MODEL_INPUTS = "model_inputs"
MANIFEST = ".manifest"


class SageMakerRealtime(RealtimeForm):
    """Real-time requests: InvokeEndpoint with the value that the InputFilter of a job selects from a line.

    ML Commons sends only objects and arrays, so a text is sent as a list of one text, whose first prediction counts.
    """

    def url_ends(self, parameters: Mapping[str, Any]) -> Sequence[str]:  # noqa: ARG002 - the endpoint has any name
        return ("/invocations",)

    def assumed(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 - the model decides
        return {}

    def body(self, line: bytes, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> object:
        value = _selected(line, parameters, inputs)
        return value if isinstance(value, dict | list) else [value]

    def row(
        self, line: bytes, response: PredictResponse, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
    ) -> bytes:
        """Return the line with `SageMakerOutput`, or only the output if rows are not joined with their records."""
        output = response.vectors or response.response
        if not isinstance(_selected(line, parameters, inputs), dict | list):
            output = first_prediction(output)
        encoded = msgspec.json.encode(output)
        return with_member(line, "SageMakerOutput", encoded) if _is_joined(parameters) else encoded

    def error_row(self, line: bytes, reason: str, parameters: Mapping[str, Any]) -> bytes:
        row = line if _is_joined(parameters) else b"{}"
        return with_member(row, "SageMakerInferenceError", msgspec.json.encode(reason))


class SageMakerAdapter(BaseAdapter):
    """The adapter for SageMaker transform jobs over JSON Lines."""

    name, model_parameter = "sagemaker", "ModelName"
    # SageMaker itself does not limit records or object size; these limits bound the duration of a job.
    limits = Limits(max_records=1_000_000, max_bytes=1024 * MIB, max_record_bytes=6 * MIB)
    errors = ErrorCodes(
        throttle=frozenset({"ThrottlingException", "ResourceLimitExceeded"}), exists=frozenset({"ResourceInUse"})
    )
    batch_path = "CreateTransformJob"
    name_parameter: str | None = "TransformJobName"
    created_member = "CreationTime"
    realtime = SageMakerRealtime()
    output_members = frozenset({"SageMakerOutput", "SageMakerInferenceError"})
    input_members = frozenset({MODEL_INPUTS})
    id_member: str | None = None
    job_name = staticmethod(aws_job_name)
    states: ClassVar[Mapping[str, State]] = {
        "InProgress": "RUNNING",
        "Stopping": "RUNNING",
        "Completed": "COMPLETED",
        "Failed": "FAILED",
        "Stopped": "CANCELLED",
    }
    example_parameters: Mapping[str, Any] = MappingProxyType(
        {
            "ModelName": "model",
            "TransformInput": {"SplitType": "Line"},
            "TransformOutput": {"AssembleWith": "Line"},
            "TransformResources": {},
            "DataProcessing": {"JoinSource": "Input"},
        }
    )

    def check(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> None:
        """Raise ConfigError unless input and output have one row per line, and rows keep their whole record."""
        for group, name, needed, reason in (
            ("TransformInput", "SplitType", "Line", "a shard has one record per line"),
            ("TransformOutput", "AssembleWith", "Line", "an output has one row per line"),
            ("DataProcessing", "OutputFilter", "$", "a row keeps its whole record"),
        ):
            if {"OutputFilter": "$", **nested_object(parameters, group)}.get(name) != needed:
                raise ConfigError(f"connector parameters.{group}.{name} must be {needed}: {reason}")
        need_parameters(parameters, "ModelName", "TransformResources", job="CreateTransformJob")
        for path in inputs or [_input_filter(parameters)]:
            PlainPath.parse(path)

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that affect the rows; names, locations and instances do not."""
        source, target = nested_object(parameters, "TransformInput"), nested_object(parameters, "TransformOutput")
        return {
            "DataProcessing": nested_object(parameters, "DataProcessing"),
            "region": parameters.get("region"),
            "Environment": nested(parameters, "Environment"),
            "BatchStrategy": parameters.get("BatchStrategy"),
            **{name: source.get(name) for name in ("ContentType", "SplitType")},
            **{name: target.get(name) for name in ("Accept", "AssembleWith")},
        }

    def row_matching(self, parameters: Mapping[str, Any]) -> RowMatching:
        """Return ``beside_record`` for JoinSource Input, else ``by_position``."""
        return "beside_record" if _is_joined(parameters) else "by_position"

    def request_line(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> RequestLine:
        """Return the function that checks a record and returns it as the line; SageMaker applies the InputFilter.

        A record without the model's input is rejected, because it would make SageMaker fail the whole job.
        """
        paths = inputs or [_input_filter(parameters)]
        read = inputs_reader(paths)

        def line(record: bytes, record_id: str) -> bytes:  # noqa: ARG001 - lines contain no id
            values = read(record)
            return record if len(paths) == 1 else with_member(record, MODEL_INPUTS, b"[%b]" % b",".join(values))

        return line

    def content_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> ContentForm | None:
        """Return the form of the value that SageMaker's InputFilter selects from the line."""
        paths = tuple(inputs or [_input_filter(parameters)])
        return ContentForm(paths) if len(paths) == 1 else ContentForm(paths, b"[", b"]")

    def line_bytes(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> Callable[[bytes, bytes], int]:
        if len(inputs or [_input_filter(parameters)]) == 1:
            return lambda record, content: len(record)  # noqa: ARG005 - the signature of all
        return lambda record, content: len(with_member(record, MODEL_INPUTS, content))

    def prediction_path(
        self, parameters: Mapping[str, Any], inputs: Sequence[str] = (), number: int | None = None
    ) -> str:
        """Return the path of the output, or of one of its elements if there are several inputs."""
        check_input_number(inputs, number)
        output_path = "$.SageMakerOutput" if self.row_matching(parameters) == "beside_record" else "$"
        return output_path if number is None or len(inputs) == 1 else f"{output_path}[{number}]"

    def batch_predict_parameters(
        self, record: JobRecord, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return TransformJobName, and the connector's input and output with this job's locations.

        An input that is a manifest gets the parameters that Data Prepper 2.17 sends for one.
        """
        if record.input.endswith(MANIFEST):
            return _manifest_parameters(record)
        data_source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": record.input}}
        overrides: dict[str, Any] = {}
        if inputs:
            path = _selector(parameters, inputs)
            overrides["DataProcessing"] = {**nested_object(parameters, "DataProcessing"), "InputFilter": path}
        return {
            **overrides,
            "TransformJobName": record.name,
            "TransformInput": {**nested_object(parameters, "TransformInput"), "DataSource": data_source},
            "TransformOutput": {**nested_object(parameters, "TransformOutput"), "S3OutputPath": record.output},
        }

    def requested_input(self, parameters: Mapping[str, Any]) -> RequestedInput:
        """Return the prefix, or nothing for a manifest, because it does not identify the content of its objects."""
        source = nested_object(parameters, "TransformInput", default={}).get("DataSource", {}).get("S3DataSource", {})
        return RequestedInput(str(source.get("S3Uri", "")) if source.get("S3DataType") == "S3Prefix" else "")

    def is_job(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Compare TransformJobName, which is unique and is the last part of the ARN."""
        arn = str(remote_job.get("TransformJobArn", ""))
        return record.name in (remote_job.get("TransformJobName"), arn.rpartition("/")[2])

    def job_status(self, remote_job: Mapping[str, Any]) -> JobStatus:
        """Read TransformJobStatus; a task without one counts as running: ML Commons has not refreshed it yet."""
        return self.status_of(remote_job.get("TransformJobStatus"), str(remote_job.get("FailureReason") or ""))

    def outputs(self, record: JobRecord, remote_job: Mapping[str, Any]) -> list[str]:  # noqa: ARG002 - the names are known
        """Return the object that SageMaker writes for the shard; for a manifest, the prefix of all output objects."""
        if record.input.endswith(MANIFEST):
            return [f"{record.output.rstrip('/')}/"]
        return [f"{record.output.rstrip('/')}/{record.input.rpartition('/')[2]}.out"]

    def row(self, row: bytes) -> PredictionRow:
        """Read the error that SageMaker or the model returned instead of a prediction."""
        try:
            check_json(row)
        except RecordRejected as error:
            return PredictionRow(None, str(error))
        return PredictionRow(None, sagemaker_error(row))


def _manifest_parameters(record: JobRecord) -> dict[str, Any]:
    data_source = {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": record.input}}
    return {
        "TransformInput": {"ContentType": "application/json", "DataSource": data_source, "SplitType": "Line"},
        "TransformJobName": record.name,
        "TransformOutput": {"AssembleWith": "Line", "Accept": "application/json", "S3OutputPath": record.output},
    }


def _input_filter(parameters: Mapping[str, Any]) -> str:
    return str(nested_object(parameters, "DataProcessing").get("InputFilter") or "$")


def _selector(parameters: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """Return the InputFilter of a job."""
    if not inputs:
        return _input_filter(parameters)
    return inputs[0] if len(inputs) == 1 else f"$.{MODEL_INPUTS}"


def _selected(line: bytes, parameters: Mapping[str, Any], inputs: Sequence[str]) -> object:
    """Return what the InputFilter selects from a line; raise RecordRejected if that is nothing."""
    (value,) = inputs_reader([_selector(parameters, inputs)])(line)
    return msgspec.json.decode(value)


def _is_joined(parameters: Mapping[str, Any]) -> bool:
    return nested_object(parameters, "DataProcessing").get("JoinSource") == "Input"


class SageMakerClient(AwsJobClient):
    """Client for transform jobs: a job is found by its name, which is unique per account and region."""

    status_member, live = "TransformJobStatus", frozenset({"InProgress"})
    service, throttle_codes = "SageMaker", SageMakerAdapter.errors.throttle

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        try:
            return self.describe(record)
        except NotFound:
            return None

    def describe(self, record: JobRecord) -> dict[str, Any]:
        with self.errors(record):
            return plain(self.api.describe_transform_job(TransformJobName=record.name))

    def cancel(self, record: JobRecord) -> None:
        with self.errors(record):
            self.api.stop_transform_job(TransformJobName=record.name)


SERVICE = AiService(
    adapter=SageMakerAdapter(),
    client=lambda api, objects: SageMakerClient(api),  # noqa: ARG005 - nothing is uploaded
    connection=AwsConnection("sagemaker"),
    row_errors=ROW_ERRORS,
)
