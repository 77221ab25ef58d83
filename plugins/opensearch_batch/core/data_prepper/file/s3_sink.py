"""Options of the s3 sink.

Source: Data Prepper's S3SinkConfig and its configuration package (2.17).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import (
    AccountId,
    BucketName,
    ByteCount,
    CheckedOptions,
    Rule,
    between,
    bucket_name,
    when,
)
from opensearch_batch.core.config.options import Duration
from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.data_prepper.file.sinks import NO_FORWARD, SinkOptions
from opensearch_batch.core.data_prepper.options.aws import Aws
from opensearch_batch.core.data_prepper.options.codecs import OutputCodec
from opensearch_batch.core.data_prepper.options.event_rules import check_format
from opensearch_batch.core.data_prepper.options.owners import owner_notes, owner_of, owner_rules
from opensearch_batch.core.types.object_info import OutputCompression

_CLIENT = "the Airflow connection configures the S3 client"


class ObjectKey(CheckedOptions, frozen=True, kw_only=True):
    """The name of an object."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {"name_pattern": "Data Prepper ignores it too; use name_pattern_prefix"}

    path_prefix: str | None = None
    name_pattern_prefix: str | None = None

    def rules(self) -> Iterator[Rule]:
        """Yield checks, each with the option it is about."""
        if self.path_prefix is not None:
            yield ("path_prefix",), lambda: check_format(self.path_prefix or "")
        yield from when(
            wrong="%{" in (self.name_pattern_prefix or ""),
            keys=("name_pattern_prefix",),
            cause="a time is always appended; remove the %{...}",
        )


class Threshold(CheckedOptions, frozen=True, kw_only=True):
    """The maximum size of an object: a number of events, 0 for no limit, and of bytes."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "event_collect_timeout": "a run ends, so objects do not wait for more events"
    }

    event_count: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    maximum_size: ByteCount = ByteCount(50 << 20)
    event_collect_timeout: Annotated[Duration, Meta(examples=["60s"])]

    def rules(self) -> Iterator[Rule]:
        """Yield checks, each with the option it is about."""
        yield from between(("event_collect_timeout",), self.event_collect_timeout, 1, 3600)


class S3Sink(SinkOptions, frozen=True, kw_only=True):
    """Options of the s3 sink; buckets have no ``s3://`` and may contain keys of the event."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "buffer_type": "objects are streamed without a buffer",
        "client": _CLIENT,
        "max_retries": _CLIENT,
        "max_connection_retries": _CLIENT,
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        **NO_FORWARD,
        "bucket_selector": "write bucket, which may contain keys of the event: logs-${/tenant}",
        "server_side_encryption": "set the default encryption of the bucket",
        "object_metadata": "objects get no metadata; the report of the run has the counts",
        "predefined_object_metadata": "objects get no metadata; the report of the run has the counts",
        "aggregate_threshold": "objects are streamed, not buffered; write threshold: {maximum_size: 50mb}",
    }

    aws: Annotated[Aws, Meta(examples=[{"region": "us-east-1"}])]
    bucket_owners: dict[str, AccountId] = msgspec.field(default_factory=dict)
    default_bucket_owner: AccountId | None = None
    bucket: BucketName
    default_bucket: BucketName | None = None
    codec: OutputCodec
    object_key: ObjectKey = ObjectKey()
    compression: OutputCompression = "none"
    threshold: Annotated[Threshold, Meta(examples=[{"event_collect_timeout": "60s"}])]

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "bucket", bucket_name(self.bucket))
        if self.default_bucket is not None:
            msgspec.structs.force_setattr(self, "default_bucket", bucket_name(self.default_bucket))

    def owner_of(self, bucket: str) -> str | None:
        """Return the account that must own a bucket, None if any may."""
        return owner_of(self, bucket)

    def rules(self) -> Iterator[Rule]:
        """Yield checks, each with the option it is about."""
        yield from super().rules()
        yield from owner_rules(self)
        yield ("bucket",), lambda: check_format(self.bucket)

    def notes(self) -> Iterator[tuple[Keys, str]]:
        """Yield remarks on placeholders for owners."""
        yield from owner_notes(self)
