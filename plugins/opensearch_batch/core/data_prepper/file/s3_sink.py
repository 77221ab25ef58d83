"""Options of the s3 sink.

Source: Data Prepper's S3SinkConfig and its configuration package (2.17).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import (
    AccountId,
    BucketName,
    ByteCount,
    ValueCheck,
    between,
    bucket_name,
    refuse,
)
from opensearch_batch.core.config.options import Duration, Options
from opensearch_batch.core.data_prepper.file.sinks import NO_FORWARD, SinkOptions
from opensearch_batch.core.data_prepper.options.aws import Aws
from opensearch_batch.core.data_prepper.options.codecs import OutputCodec
from opensearch_batch.core.data_prepper.options.expressions import Format, check_format
from opensearch_batch.core.types.object_info import OutputCompression

_CLIENT = "the Airflow connection configures the S3 client"


def _check_prefix(text: str) -> None:
    if "%{" in text:
        refuse("the sink always appends a time; remove the %{...}")


class ObjectKey(Options, frozen=True, kw_only=True):
    """Options for the names of objects."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {"name_pattern": "Data Prepper ignores it too; use name_pattern_prefix"}

    path_prefix: Format | None = None
    name_pattern_prefix: Annotated[str, ValueCheck(_check_prefix)] | None = None


class Threshold(Options, frozen=True, kw_only=True):
    """The maximum number of events (0 for no limit) and bytes of an object."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {"event_collect_timeout": "a run does not wait for more events"}

    event_count: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    maximum_size: ByteCount = ByteCount(50 << 20)
    event_collect_timeout: Annotated[Duration, Meta(examples=["60s"]), between(1, 3600)]


class S3Sink(SinkOptions, frozen=True, kw_only=True):
    """Options of the s3 sink. Buckets are names without ``s3://``; only that in `bucket` may contain event keys."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "buffer_type": "an object is held in memory while it is small, then on disk",
        "client": _CLIENT,
        "max_retries": _CLIENT,
        "max_connection_retries": _CLIENT,
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        **NO_FORWARD,
        "bucket_selector": "use the option bucket instead; it may contain keys of the event, like logs-${/tenant}",
        "server_side_encryption": "set the default encryption of the bucket",
        "object_metadata": "objects get no metadata; the report of the run has the counts",
        "predefined_object_metadata": "objects get no metadata; the report of the run has the counts",
        "aggregate_threshold": "objects are limited one by one, not together; limit each with threshold.maximum_size",
    }

    aws: Annotated[Aws, Meta(examples=[{"region": "us-east-1"}])]
    bucket_owners: dict[str, AccountId] = msgspec.field(default_factory=dict)
    default_bucket_owner: AccountId | None = None
    bucket: Annotated[BucketName, ValueCheck(check_format)]
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
        """Return the account that must own a bucket, None if any account may."""
        return self.bucket_owners.get(bucket) or self.default_bucket_owner or self.aws.account
