"""Amazon SageMaker batch transform: a shard is one input object, its answer one ``.out`` object, row by row in order.

With ``JoinSource: Input`` each output row is the record itself plus ``SageMakerOutput``, so nothing else is joined.
Source: the SageMaker API reference (CreateTransformJob) and the connector of "Using an OpenSearch Ingestion pipeline
with machine learning offline batch inference".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.job import JobRecord, State
from opensearch_batch.core.json_path import PlainPath
from opensearch_batch.core.manifest import digest
from opensearch_batch.core.watch import Sighting
from opensearch_batch.services.base import Limits, RequestLine

MIB = 1 << 20
MAX_NAME_CHARS = 63
ERROR_KEY = b"SageMakerInferenceError"
_STATES: dict[str, State] = {
    "InProgress": "RUNNING",
    "Stopping": "RUNNING",
    "Completed": "COMPLETED",
    "Failed": "FAILED",
    "Stopped": "CANCELLED",
}


class _ErrorRow(msgspec.Struct):
    SageMakerInferenceError: msgspec.Raw = msgspec.Raw()


class SageMaker:
    """The adapter for SageMaker transform jobs with line-split JSON input joined into the output."""

    name = "sagemaker"
    # SageMaker sets no limit on records or object size; these keep one job a unit a person can wait for.
    limits = Limits(max_records=1_000_000, max_bytes=1024 * MIB, max_record_bytes=6 * MIB)
    throttle_codes = frozenset({"ThrottlingException", "ResourceLimitExceeded"})
    exists_codes = frozenset({"ResourceInUse"})

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise ConfigError unless rows are split by line and carry their input."""
        processing = _member(parameters, "DataProcessing")
        if processing.get("JoinSource") != "Input":
            raise ConfigError(
                "connector parameters.DataProcessing.JoinSource must be Input, "
                "so that each prediction comes back beside its record"
            )
        if _member(parameters, "TransformInput").get("SplitType") != "Line":
            raise ConfigError("connector parameters.TransformInput.SplitType must be Line: a shard has a record a line")
        if _member(parameters, "TransformOutput").get("AssembleWith") != "Line":
            raise ConfigError("connector parameters.TransformOutput.AssembleWith must be Line: a row stands on a line")
        if processing.get("OutputFilter", "$") != "$":
            raise ConfigError(
                "connector parameters.DataProcessing.OutputFilter must be $: a row keeps its whole record"
            )
        for needed in ("ModelName", "TransformResources"):
            if needed not in parameters:
                raise ConfigError(f"connector parameters.{needed} is missing; CreateTransformJob needs it")
        PlainPath.parse(_input_filter(parameters))

    def model(self, parameters: Mapping[str, Any]) -> str:
        """Return ModelName."""
        return str(parameters["ModelName"])

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return what shapes the rows: filters, split, assembly and strategy; not names, places, machines."""
        source, target = _member(parameters, "TransformInput"), _member(parameters, "TransformOutput")
        return {
            "DataProcessing": _member(parameters, "DataProcessing"),
            "region": parameters.get("region"),
            "Environment": parameters.get("Environment"),
            "BatchStrategy": parameters.get("BatchStrategy"),
            "ContentType": source.get("ContentType"),
            "SplitType": source.get("SplitType"),
            "Accept": target.get("Accept"),
            "AssembleWith": target.get("AssembleWith"),
        }

    def request_line(self, parameters: Mapping[str, Any]) -> RequestLine:
        """Return a check that leaves records unchanged: SageMaker itself takes the model's input out by InputFilter.

        A record with nothing there is rejected, because SageMaker would fail the whole job for it.
        """
        path = PlainPath.parse(_input_filter(parameters))
        read = path.reader()

        def line(record: bytes) -> bytes:
            if read(record) in (None, b"null"):
                raise RecordRejected(f"nothing at {path.text}, which the model reads (DataProcessing.InputFilter)")
            return record

        return line

    def job_name(self, prefix: str, folder: str, generation: int) -> str:
        """Return a TransformJobName: letters, digits and hyphens, at most 63.

        SageMaker takes a name once an account and region, so the folder, work prefix included, stands in it.
        """
        tail = f"-{digest(folder)}-{generation}"
        head = "".join(c if c.isascii() and c.isalnum() else "-" for c in prefix)[: MAX_NAME_CHARS - len(tail)]
        return (head.strip("-") or "job") + tail

    def batch_predict_parameters(self, record: JobRecord, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return TransformJobName, and the connector's input and output with this job's places in them."""
        place = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": record.input}}
        return {
            "TransformJobName": record.name,
            "TransformInput": {**_member(parameters, "TransformInput"), "DataSource": place},
            "TransformOutput": {**_member(parameters, "TransformOutput"), "S3OutputPath": record.output},
        }

    def is_task_of(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Compare by TransformJobName, which SageMaker never gives twice; the ARN ends with it."""
        arn = str(remote_job.get("TransformJobArn", ""))
        return record.name in (remote_job.get("TransformJobName"), arn.rpartition("/")[2])

    def sighting(self, remote_job: Mapping[str, Any]) -> Sighting:
        """Read TransformJobStatus; a task ML Commons has not refreshed yet has none and is running."""
        status = remote_job.get("TransformJobStatus")
        return Sighting(_STATES.get(str(status), "RUNNING"), str(remote_job.get("FailureReason") or ""))

    def outputs(self, record: JobRecord) -> list[str]:
        """Return the one object SageMaker writes for the shard: its input's name with ``.out``."""
        return [f"{record.output.rstrip('/')}/{record.input.rpartition('/')[2]}.out"]

    def row_error(self, row: bytes) -> str | None:
        """Return the error SageMaker puts in place of a prediction."""
        if ERROR_KEY not in row:
            return None
        try:
            reason = bytes(msgspec.json.decode(row, type=_ErrorRow).SageMakerInferenceError)
        except msgspec.DecodeError:
            return None
        return None if reason in (b"", b"null") else f"SageMakerInferenceError: {reason.decode()}"


def _member(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parameters.get(name)
    if isinstance(value, str):
        # ML Commons stores nested connector parameters as JSON text.
        value = msgspec.json.decode(value)
    if not isinstance(value, dict):
        raise ConfigError(f"connector parameters.{name} must be an object, as CreateTransformJob documents it")
    return value


def _input_filter(parameters: Mapping[str, Any]) -> str:
    return str(_member(parameters, "DataProcessing").get("InputFilter") or "$")
