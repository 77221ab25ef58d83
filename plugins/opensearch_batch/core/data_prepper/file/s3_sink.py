"""Which objects rows are written into, and where one ends: the options of the s3 sink.

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
from opensearch_batch.core.data_prepper.options.codecs import OutputCodec, OutputCompression
from opensearch_batch.core.data_prepper.options.event_rules import check_format
from opensearch_batch.core.data_prepper.options.owners import owner_notes, owner_of, owner_rules

_CLIENT = "the S3 client of the Airflow connection decides about connections and retries"


class ObjectKey(CheckedOptions, frozen=True, kw_only=True):
    """What an object is called."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "name_pattern": "the original takes no pattern for the name; name_pattern_prefix is put before it"
    }

    path_prefix: str | None = None
    name_pattern_prefix: str | None = None

    def rules(self) -> Iterator[Rule]:
        """Yield what is checked, and the option it is about."""
        if self.path_prefix is not None:
            yield ("path_prefix",), lambda: check_format(self.path_prefix or "")
        yield from when(
            wrong="%{" in (self.name_pattern_prefix or ""),
            keys=("name_pattern_prefix",),
            cause="a time follows in any case; remove the %{...}",
        )


class Threshold(CheckedOptions, frozen=True, kw_only=True):
    """Where an object ends: after so many events, 0 for any number, or so many bytes."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "event_collect_timeout": "a run ends, so an object never waits for more events"
    }

    event_count: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    maximum_size: ByteCount = ByteCount(50 << 20)
    event_collect_timeout: Annotated[Duration, Meta(examples=["60s"])]

    def rules(self) -> Iterator[Rule]:
        """Yield what is checked, and the option it is about."""
        yield from between(("event_collect_timeout",), self.event_collect_timeout, 1, 3600)


class S3Sink(SinkOptions, frozen=True, kw_only=True):
    """The s3 sink; buckets without ``s3://``, perhaps a format."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "buffer_type": "an object is written as a stream, and held neither in memory nor in a file",
        "client": _CLIENT,
        "max_retries": _CLIENT,
        "max_connection_retries": _CLIENT,
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        **NO_FORWARD,
        "bucket_selector": "a bucket is not asked for elsewhere; write bucket, which may be a format: logs-${/tenant}",
        "server_side_encryption": "objects are encrypted as their bucket says; set its default encryption",
        "object_metadata": "objects have no metadata of ours; the report of the run counts them",
        "predefined_object_metadata": "objects have no metadata of ours; the report of the run counts them",
        "aggregate_threshold": "objects are not held in memory together; write threshold: {maximum_size: 50mb}",
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
        """Return the account that must own a bucket, None where nobody is said to."""
        return owner_of(self, bucket)

    def rules(self) -> Iterator[Rule]:
        """Yield what is checked, and the option it is about."""
        yield from super().rules()
        yield from owner_rules(self)
        yield ("bucket",), lambda: check_format(self.bucket)

    def notes(self) -> Iterator[tuple[Keys, str]]:
        """Yield which owners are yet to be written."""
        yield from owner_notes(self)
