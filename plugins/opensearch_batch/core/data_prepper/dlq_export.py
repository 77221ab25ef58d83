"""Exports dead letters to the sink's DLQ in Data Prepper's format.

The exported objects are copies: replays and counts use this package's dead letter files. The key of an exported object
depends only on the dead letters and their time, so a retry replaces the object. Times are UTC; Data Prepper writes
local time with a Z.
Source: DlqObject, S3DlqWriter, KeyPathGenerator, MLBatchJobFailedDlqData and FailedDlqData (2.17).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from opensearch_batch.core.data_prepper.file.ml_inference import input_event
from opensearch_batch.core.data_prepper.options.aws import S3Dlq
from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.json_text import check_json
from opensearch_batch.core.storage.dead_letters import as_bytes, list_parts, read_letters
from opensearch_batch.core.storage.objects import Objects, split_uri
from opensearch_batch.core.transform.events.date_pattern import check_date_placeholders
from opensearch_batch.core.transform.expressions.format_string import dated
from opensearch_batch.core.types.object_info import ObjectInfo

VERSION = 2
# Data Prepper's status for failures without a response.
NO_STATUS = 400
_MILLISECOND = 1000


class FailedInput(msgspec.Struct, frozen=True, rename="camel"):
    """An input that ml_inference could not submit; `data` is the JSON of its event."""

    s3_bucket: str
    s3_key: str
    status: int
    message: str
    data: str


class FailedDocument(msgspec.Struct, frozen=True, rename="camel"):
    """A document that the opensearch sink could not write; a document that is not valid JSON is stored as a string."""

    index: str
    index_id: str | None
    status: int
    message: str
    document: msgspec.Raw | str


class DlqEntry(msgspec.Struct, frozen=True, rename="camel"):
    """A dead letter in Data Prepper's format (DlqObject)."""

    plugin_id: str
    plugin_name: str
    pipeline_name: str
    failed_data: FailedInput | FailedDocument
    timestamp: str

    @classmethod
    def of(cls, failed: FailedInput | FailedDocument, *, pipeline: str, at: datetime) -> DlqEntry:
        """Return the dead letter for a failed input or document."""
        plugin, time = "s3" if isinstance(failed, FailedInput) else "opensearch", at.astimezone(UTC)
        timestamp = f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // _MILLISECOND:03}Z"
        return cls(plugin, plugin, pipeline, failed, timestamp)


def write_dlq(
    objects: Objects, target: Objects, dlq: S3Dlq, *, queue: str, pipeline: str, index: str, at: datetime
) -> None:
    """Export a queue as dead letters of the opensearch sink, one object for each part of the queue."""
    for part in list_parts(objects, queue):
        failed = [
            FailedDocument(index, letter.id, letter.status or NO_STATUS, letter.reason, json_or_text(as_bytes(letter)))
            for letter in read_letters(objects, part)
        ]
        _write(target, dlq, failed, pipeline, at)


def write_failed_inputs(
    target: Objects, dlq: S3Dlq, inputs: Sequence[ObjectInfo], *, pipeline: str, reason: str, at: datetime
) -> None:
    """Export the inputs of a failed job as dead letters of ml_inference."""
    failed = [
        FailedInput(*split_uri(item.uri), NO_STATUS, reason, input_event(item).to_json().decode(errors="replace"))
        for item in inputs
    ]
    _write(target, dlq, failed, pipeline, at)


def _write(
    target: Objects, dlq: S3Dlq, failed: Sequence[FailedInput | FailedDocument], pipeline: str, at: datetime
) -> None:
    if failed:
        entries = [DlqEntry.of(each, pipeline=pipeline, at=at) for each in failed]
        key = dlq_key(entries, key_path_prefix=dlq.key_path_prefix, at=at)
        target.write(f"s3://{dlq.bucket}/{key}", msgspec.json.format(dlq_body(entries), indent=-1))


def json_or_text(document: bytes) -> msgspec.Raw | str:
    """Return valid JSON unchanged, and any other document as a string."""
    try:
        return msgspec.Raw(check_json(document))
    except RecordRejected:
        return document.decode(errors="replace")


def dlq_body(entries: Sequence[DlqEntry]) -> bytes:
    """Return the body of a DLQ object."""
    return msgspec.json.encode({"dlqObjects": entries})


def dlq_key(entries: Sequence[DlqEntry], *, key_path_prefix: str | None, at: datetime) -> str:
    """Return the key of a DLQ object of one plugin and pipeline; raise ConfigError for an invalid date pattern."""
    first, failed = entries[0], msgspec.json.encode([entry.failed_data for entry in entries])
    # The identifier depends only on the content of the dead letters.
    identifier = uuid.uuid5(uuid.NAMESPACE_OID, failed.decode())
    name = f"dlq-v{VERSION}-{first.pipeline_name}-{first.plugin_id}-{_instant(at)}-{identifier}.json"
    if not key_path_prefix:
        return name
    check_date_placeholders(key_path_prefix)
    return f"{dated(key_path_prefix, at).removesuffix('/')}/{name}"


def _instant(at: datetime) -> str:
    """Format a time like Java's Instant.toString: without a fraction, or with three or six digits."""
    time = at.astimezone(UTC)
    fraction = f".{time.microsecond:06}" if time.microsecond else ""
    return f"{time:%Y-%m-%dT%H:%M:%S}{fraction.removesuffix('000')}Z"
