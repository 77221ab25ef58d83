"""Options of s3_enrich, which copies fields of an input record to its output row.

Source: Data Prepper's S3EnrichProcessorConfig (2.17); ``correlation_key`` exists only in its README, not in the code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import BucketName, ValueCheck, bucket_name
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.data_prepper.options.aws import OwnedBuckets
from opensearch_batch.core.data_prepper.options.codecs import DEFAULT_RECORD_OBJECT_EXTENSION, RecordObjectCodec
from opensearch_batch.core.data_prepper.options.expressions import Condition, EventKey
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.types.object_info import Compression, ObjectInfo

_STREAMED = "the join is streamed and needs neither a cache nor a size limit"


def _check_pattern(text: str) -> None:
    try:
        groups = re.compile(text).groups
    except (re.error, OverflowError) as error:
        raise ConfigError(f"{text!r} is not a valid regular expression: {error}") from None
    if not groups:
        raise ConfigError("the pattern has no capturing group; put the input's name in parentheses: ^(.*)\\.out$")


class EnrichFilter(Options, frozen=True, kw_only=True):
    """The prefix of the objects with the input records, in their bucket."""

    include_prefix: str | None = None


class EnrichBucket(Options, frozen=True, kw_only=True):
    """The bucket of the objects with the input records, without ``s3://``."""

    name: BucketName
    filter: EnrichFilter | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "name", bucket_name(self.name))


class S3Enrich(OwnedBuckets, frozen=True, kw_only=True):
    """Options of s3_enrich."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "s3_object_size_limit": _STREAMED,
        # Its name in different versions of Data Prepper.
        "cache_max_count": _STREAMED,
        "cache_max_size": _STREAMED,
        "cache_ttl": _STREAMED,
    }

    bucket: EnrichBucket
    codec: RecordObjectCodec
    compression: Compression = "none"
    s3_key_path: Annotated[EventKey, Meta(min_length=1, examples=["s3/key"])]
    s3_object_name_pattern: Annotated[
        str, Meta(min_length=1, examples=["^(.*)\\.jsonl\\.out$"]), ValueCheck(_check_pattern)
    ]
    correlation_keys: Annotated[tuple[EventKey, ...], Meta(min_length=1, max_length=1, examples=[["recordId"]])]
    keys_to_merge: Annotated[tuple[EventKey, ...], Meta(min_length=1, examples=[["title"]])]
    enrich_when: Condition | None = None
    tags_on_failure: tuple[str, ...] = ()

    def record_object_of(self, item: ObjectInfo) -> str:
        """Return the URI of the object with the input records of an output object, derived as in Data Prepper."""
        name = item.uri.rpartition("/")[2]
        match = re.fullmatch(self.s3_object_name_pattern, name)
        prefix = self.bucket.filter.include_prefix if self.bucket.filter else None
        extension = self.codec.extension if self.codec.extension.strip() else DEFAULT_RECORD_OBJECT_EXTENSION
        return f"s3://{self.bucket.name}/{prefix or ''}{f'{match[1]}.{extension}' if match and match[1] else name}"
