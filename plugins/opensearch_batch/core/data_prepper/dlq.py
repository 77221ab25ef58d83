"""Dead letters in Data Prepper's format: body and key of a DLQ object.

The same dead letters at the same time have the same key, so a repeated attempt replaces its object. Times are UTC; Data
Prepper writes local time with a Z. Source: DlqObject, S3DlqWriter, KeyPathGenerator, MLBatchJobFailedDlqData and
FailedDlqData (2.17).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.json_text import check_json
from opensearch_batch.core.transform.events.date_pattern import check_date_placeholders
from opensearch_batch.core.transform.expressions.format_string import dated

VERSION = 2
_ML_INFERENCE, _OPENSEARCH = "s3", "opensearch"
_MILLISECOND = 1000


class FailedInput(msgspec.Struct, frozen=True, rename="camel"):
    """An input that ml_inference could not submit; `data` is the text of its event."""

    s3_bucket: str
    s3_key: str
    status: int
    message: str
    data: str


class FailedDocument(msgspec.Struct, frozen=True, rename="camel"):
    """A document that the opensearch sink could not write; `status` is 0 if OpenSearch returned none."""

    index: str
    index_id: str | None
    status: int
    message: str
    document: msgspec.Raw | str


class DataPrepperLetter(msgspec.Struct, frozen=True, rename="camel"):
    """One dead letter of Data Prepper."""

    plugin_id: str
    plugin_name: str
    pipeline_name: str
    failed_data: FailedInput | FailedDocument
    timestamp: str


def ml_inference_letter(
    event: bytes, *, pipeline: str, bucket: str, key: str, status: int, message: str, at: datetime
) -> DataPrepperLetter:
    """Return the dead letter of an input object."""
    failed = FailedInput(bucket, key, status, message, event.decode(errors="replace"))
    return _letter(_ML_INFERENCE, pipeline, failed, at)


def opensearch_letter(
    document: bytes, *, pipeline: str, index: str, index_id: str | None, status: int, message: str, at: datetime
) -> DataPrepperLetter:
    """Return the dead letter of a document; invalid JSON is included as a text."""
    try:
        shown: msgspec.Raw | str = msgspec.Raw(check_json(document))
    except RecordRejected:
        shown = document.decode(errors="replace")
    return _letter(_OPENSEARCH, pipeline, FailedDocument(index, index_id, status, message, shown), at)


def dlq_body(letters: Sequence[DataPrepperLetter]) -> bytes:
    """Return the body of a DLQ object."""
    return msgspec.json.encode({"dlqObjects": letters})


def dlq_key(letters: Sequence[DataPrepperLetter], *, key_path_prefix: str | None, at: datetime) -> str:
    """Return the key of a DLQ object, for dead letters of one plugin and pipeline.

    Raises:
        ConfigError: the prefix contains an invalid date pattern.
    """
    first = letters[0]
    name = f"dlq-v{VERSION}-{first.pipeline_name}-{first.plugin_id}-{_instant(at)}-{_identifier(letters)}.json"
    return f"{_prefix(key_path_prefix, at)}{name}" if key_path_prefix else name


def _prefix(text: str, at: datetime) -> str:
    check_date_placeholders(text)
    return f"{dated(text, at).removesuffix('/')}/"


def _letter(plugin: str, pipeline: str, failed: FailedInput | FailedDocument, at: datetime) -> DataPrepperLetter:
    time = at.astimezone(UTC)
    timestamp = f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // _MILLISECOND:03}Z"
    return DataPrepperLetter(plugin, plugin, pipeline, failed, timestamp)


def _instant(at: datetime) -> str:
    """Return a time as Java's Instant.toString: no fraction, or three or six digits."""
    time = at.astimezone(UTC)
    fraction = f".{time.microsecond:06}" if time.microsecond else ""
    return f"{time:%Y-%m-%dT%H:%M:%S}{fraction.removesuffix('000')}Z"


def _identifier(letters: Sequence[DataPrepperLetter]) -> uuid.UUID:
    """Return an identifier that depends on the content of the dead letters only."""
    failed = msgspec.json.encode([letter.failed_data for letter in letters])
    return uuid.uuid5(uuid.NAMESPACE_OID, failed.decode())
