"""Exports dead letters to the sink's DLQ in Data Prepper's format.

These are copies; our own dead letters are replayed and counted. The same dead letters make the same objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from opensearch_batch.core.data_prepper.dlq import (
    DataPrepperLetter,
    dlq_body,
    dlq_key,
    ml_inference_letter,
    opensearch_letter,
)
from opensearch_batch.core.data_prepper.options.aws import S3Dlq
from opensearch_batch.core.data_prepper.row_reading import metadata_event
from opensearch_batch.core.storage.dead_letters import as_bytes, list_parts, read_letters
from opensearch_batch.core.storage.objects import Objects, split_uri
from opensearch_batch.core.types.object_info import ObjectInfo

# Data Prepper's status for failures without a response.
NO_STATUS = 400


def write_dlq(
    objects: Objects, target: Objects, dlq: S3Dlq, *, queue: str, pipeline: str, index: str, at: datetime
) -> None:
    """Export a queue as dead letters of the opensearch sink, one object for each part of the queue."""
    for part in list_parts(objects, queue):
        letters = [
            opensearch_letter(
                as_bytes(letter),
                pipeline=pipeline,
                index=index,
                index_id=letter.id,
                status=letter.status or NO_STATUS,
                message=letter.reason,
                at=at,
            )
            for letter in read_letters(objects, part)
        ]
        _write(target, dlq, letters, at)


def write_failed_inputs(
    target: Objects, dlq: S3Dlq, inputs: Sequence[ObjectInfo], *, pipeline: str, reason: str, at: datetime
) -> None:
    """Export the inputs of a failed job as dead letters of ml_inference."""
    letters = []
    for item in inputs:
        bucket, key = split_uri(item.uri)
        event = metadata_event(item).to_json()
        letters.append(
            ml_inference_letter(
                event, pipeline=pipeline, bucket=bucket, key=key, status=NO_STATUS, message=reason, at=at
            )
        )
    _write(target, dlq, letters, at)


def _write(target: Objects, dlq: S3Dlq, letters: Sequence[DataPrepperLetter], at: datetime) -> None:
    if letters:
        key = dlq_key(letters, key_path_prefix=dlq.key_path_prefix, at=at)
        target.write(f"s3://{dlq.bucket}/{key}", msgspec.json.format(dlq_body(letters), indent=-1))
