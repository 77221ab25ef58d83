"""SageMaker's batch transform. An output object is stored only if all records of its input were computed.

Outputs are stored together at the end: a job that is stopped, or whose worker is killed, leaves none.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from include.local_stack.ai_services import container
from include.local_stack.ai_services.aws import REGION
from include.local_stack.ai_services.jobs import Job
from include.local_stack.ai_services.model import MiniLM
from include.local_stack.ai_services.transform import RecordError, Transform

S3Client = Any  # boto3 makes the methods of its clients at run time

RECORDS_PER_BATCH = 256
DEFAULT_MAX_PAYLOAD_MB = 6


class JobFailedError(Exception):
    """The job ends as Failed; the message is its FailureReason."""


@dataclass(frozen=True)
class Tools:
    """What a job computes with; `raise_if_stopped` ends a job that was asked to stop."""

    s3: S3Client
    model: MiniLM
    work_dir: Path
    raise_if_stopped: Callable[[], None]


@dataclass(frozen=True)
class Source:
    """One input object, and the part of its key that its output keeps."""

    bucket: str
    key: str
    relative_key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def run(job: Job, tools: Tools) -> None:
    """Compute a job to its end; raises JobFailedError, after the outputs of the good objects are stored."""
    outputs: list[tuple[Source, Path]] = []
    failures: list[str] = []
    try:
        for number, source in enumerate(_sources(tools.s3, job.request["TransformInput"]["DataSource"])):
            output = tools.work_dir / f"{number}.out"
            try:
                _transform_object(source, output, job.request, tools)
                outputs.append((source, output))
            except (RecordError, container.PayloadError) as error:
                failures.append(f"ClientError: {error}")
        tools.raise_if_stopped()
        for source, output in outputs:
            _store(tools.s3, job.request["TransformOutput"]["S3OutputPath"], source, output)
    except (ClientError, BotoCoreError) as error:
        raise JobFailedError(f"ClientError: {error}") from error
    if failures:
        raise JobFailedError(failures[0])


def _sources(s3: S3Client, data_source: dict[str, Any]) -> list[Source]:
    uri = data_source["S3DataSource"]["S3Uri"]
    bucket, key = split_uri(uri)
    try:
        manifest = data_source["S3DataSource"]["S3DataType"] == "ManifestFile"
        sources = list(_from_manifest(s3, bucket, key) if manifest else _from_prefix(s3, bucket, key))
    except ClientError as error:
        raise JobFailedError(f'ClientError: The S3 input "{uri}" cannot be read: {error}') from error
    if not sources:
        raise JobFailedError(
            f'ClientError: No S3 objects found under S3 URL "{uri}" given in input data source. '
            f"Please ensure that the bucket exists in the selected region ({REGION}) "
            "and that objects exist under that S3 prefix."
        )
    return sources


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI; the key may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def relative_key(key: str, prefix: str) -> str:
    """The folders below the prefix and the file name; a prefix within a name cuts no name in two."""
    if key.startswith(prefix) and key[len(prefix) :].startswith("/"):
        return key[len(prefix) + 1 :]
    return key[prefix.rfind("/") + 1 :]


def _from_prefix(s3: S3Client, bucket: str, prefix: str) -> Iterator[Source]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            if not found["Key"].endswith("/"):  # a console's folder marker is no data
                yield Source(bucket, found["Key"], relative_key(found["Key"], prefix))


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


def _transform_object(source: Source, output: Path, request: dict[str, Any], tools: Tools) -> None:
    local_input = output.with_suffix(".in")
    with local_input.open("wb") as file:
        tools.s3.download_fileobj(source.bucket, source.key, file)
    transform = Transform.of(request)
    ending = b"\n" if request["TransformOutput"].get("AssembleWith") == "Line" else b""
    records = _records(local_input, source, request)
    with output.open("wb") as file:
        while batch := list(islice(records, RECORDS_PER_BATCH)):
            tools.raise_if_stopped()
            for result in _computed(batch, transform, source, tools.model):
                file.write(result + ending)
    local_input.unlink()


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


def _computed(batch: list[tuple[int, bytes]], transform: Transform, source: Source, model: MiniLM) -> Iterator[bytes]:
    payloads = []
    for number, record in batch:
        try:
            payloads.append(container.texts_of(transform.payload(record)))
        except (RecordError, container.PayloadError) as error:
            raise RecordError(f"{source} line {number}: {error}") from error
    answers = container.answers(model, payloads)
    for (number, record), answer in zip(batch, answers, strict=True):
        try:
            yield transform.output(record, answer)
        except RecordError as error:
            raise RecordError(f"{source} line {number}: {error}") from error


def _store(s3: S3Client, output_uri: str, source: Source, output: Path) -> None:
    bucket, prefix = split_uri(output_uri)
    key = "/".join(part for part in (prefix.rstrip("/"), f"{source.relative_key}.out") if part)
    with output.open("rb") as file:
        s3.put_object(Bucket=bucket, Key=key, Body=file)
