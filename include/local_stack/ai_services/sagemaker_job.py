"""SageMaker's batch transform. An output object is stored only if all records of its input were computed.

Outputs are stored together at the end: a job that is stopped, or whose worker is killed, leaves none.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from include.local_stack.ai_services import container
from include.local_stack.ai_services.aws import REGION
from include.local_stack.ai_services.computing import JobFailedError, Outcome, S3Client, Tools, batches
from include.local_stack.ai_services.damage import Damage
from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.jobs import Job, State
from include.local_stack.ai_services.s3 import Source, sources_below, split_uri, store
from include.local_stack.ai_services.transform import RecordError, Transform

DEFAULT_MAX_PAYLOAD_MB = 6
INFERENCE_ERROR = b'"The model could not compute this record."'


def run(job: Job, tools: Tools) -> Outcome:
    """Compute a job to its end; raises JobFailedError, after the outputs of the good objects are stored."""
    tools.raise_if_stopped()
    tools.enter(State.RUNNING)
    if job.fault(FaultKind.FAIL):
        raise JobFailedError("AlgorithmError: See job logs for more information")
    outputs: list[tuple[Source, Path]] = []
    failures: list[str] = []
    try:
        for number, source in enumerate(_sources(tools.s3, job.request["TransformInput"]["DataSource"])):
            output = tools.work_dir / f"{number}.out"
            try:
                _transform_object(source, output, job, tools)
                outputs.append((source, output))
            except (RecordError, container.PayloadError) as error:
                failures.append(f"ClientError: {error}")
        tools.raise_if_stopped()
        for source, output in outputs:
            store(tools.s3, job.request["TransformOutput"]["S3OutputPath"], f"{source.relative_key}.out", output)
    except (ClientError, BotoCoreError) as error:
        raise JobFailedError(f"ClientError: {error}") from error
    if failures:
        raise JobFailedError(failures[0])
    return Outcome()


def _sources(s3: S3Client, data_source: dict[str, Any]) -> list[Source]:
    uri = data_source["S3DataSource"]["S3Uri"]
    bucket, key = split_uri(uri)
    try:
        manifest = data_source["S3DataSource"]["S3DataType"] == "ManifestFile"
        sources = list(_from_manifest(s3, bucket, key) if manifest else sources_below(s3, bucket, key))
    except ClientError as error:
        raise JobFailedError(f'ClientError: The S3 input "{uri}" cannot be read: {error}') from error
    if not sources:
        raise JobFailedError(
            f'ClientError: No S3 objects found under S3 URL "{uri}" given in input data source. '
            f"Please ensure that the bucket exists in the selected region ({REGION}) "
            "and that objects exist under that S3 prefix."
        )
    return sources


def _from_manifest(s3: S3Client, bucket: str, key: str) -> Iterator[Source]:
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    try:
        head, *names = json.loads(body)
        data_bucket, prefix = split_uri(head["prefix"])
    except (ValueError, TypeError, KeyError) as error:
        raise JobFailedError(
            f"ClientError: s3://{bucket}/{key} is not a manifest: "
            'expected [{"prefix": "s3://bucket/prefix/"}, "relative/key", ...]'
        ) from error
    for name in names:
        yield Source(data_bucket, f"{prefix}{name}", str(name))


def _transform_object(source: Source, output: Path, job: Job, tools: Tools) -> None:
    local_input = output.with_suffix(".in")
    source.download(tools.s3, local_input)
    transform, damage = Transform.of(job.request), Damage(job.faults)
    ending = b"\n" if job.request["TransformOutput"].get("AssembleWith") == "Line" else b""
    with output.open("wb") as file:
        for batch in batches(_records(local_input, source, job.request)):
            tools.raise_if_stopped()
            payloads = _payloads(batch, transform, source, damage)
            answered = container.answers(tools.model, job.request["ModelName"], payloads)
            for result in _results(batch, answered, transform, source, damage):
                file.write(result + ending)
    local_input.unlink()
    damage.invalidate_output(output)


def _records(path: Path, source: Source, request: dict[str, Any]) -> Iterator[tuple[int, bytes]]:
    transform_input = request["TransformInput"]
    gzipped = transform_input.get("CompressionType") == "Gzip"
    max_bytes = (request.get("MaxPayloadInMB") or DEFAULT_MAX_PAYLOAD_MB) * 1024 * 1024
    with cast("IO[bytes]", gzip.open(path) if gzipped else path.open("rb")) as file:
        by_line = transform_input.get("SplitType") == "Line"
        for number, record in enumerate(file if by_line else [file.read()], 1):
            if len(record) > max_bytes:
                raise RecordError(f"{source} line {number}: {len(record)} bytes are more than MaxPayloadInMB allows")
            yield number, record.rstrip(b"\r\n")


def _payloads(
    batch: list[tuple[int, bytes]], transform: Transform, source: Source, damage: Damage
) -> list[container.Texts]:
    payloads = []
    for number, record in batch:
        try:
            payloads.append(container.texts_of(transform.payload(record), dropped=damage.dropped(number)))
        except (RecordError, container.PayloadError) as error:
            raise RecordError(f"{source} line {number}: {error}") from error
    return payloads


def _results(
    batch: list[tuple[int, bytes]], answered: list[bytes], transform: Transform, source: Source, damage: Damage
) -> Iterator[bytes]:
    for (number, record), answer in zip(batch, answered, strict=True):
        try:
            if damage.fails(number):
                yield transform.failure(record, INFERENCE_ERROR)
            else:
                yield transform.output(record, answer)
        except RecordError as error:
            raise RecordError(f"{source} line {number}: {error}") from error
