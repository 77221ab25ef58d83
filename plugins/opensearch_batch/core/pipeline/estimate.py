"""Estimates the shards and jobs of a source from the names and sizes of its objects.

Shards are filled to their limits, as in `core.sharding.cut`, and every record is counted as if its prediction had to be
paid for. The number of records is estimated from the average size of the sample records.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.compression import COMPRESSED
from opensearch_batch.core.storage.globs import SourceUri
from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.shard_limits import ShardLimits

# A line of `aws s3 ls --recursive`: date, time, size, key.
_LISTED = re.compile(r"\s*\d{4}-\d{2}-\d{2}\s+\d{2}:\d{2}:\d{2}\s+(?P<size>\d+)\s+(?P<key>\S.*?)\s*")


class Estimate(msgspec.Struct, frozen=True):
    """Estimated size of a run; `records` is None without sample records; `compressed` counts compressed objects."""

    objects: int
    bytes: int
    shards: int
    records: int | None = None
    compressed: int = 0


def read_listing(text: str, uri: str, *, include: Sequence[str], exclude: Sequence[str]) -> list[ObjectInfo]:
    """Return the objects of a source in the output of ``aws s3 ls``; raise ConfigError if there are none."""
    bucket, source = split_uri(uri)[0], SourceUri(uri, include, exclude)
    objects = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        listed = _LISTED.fullmatch(line)
        if listed is None:
            raise ConfigError(f"line {number} is not a line of `aws s3 ls --recursive`: {line!r}")
        listed_uri = f"s3://{bucket}/{listed['key']}"
        if not listed_uri.endswith("/") and source.contains(listed_uri):
            objects.append(ObjectInfo(listed_uri, int(listed["size"]), ""))
    if not objects:
        raise ConfigError(f"the listing has no object of {uri}; list that bucket with --recursive")
    return sorted(objects, key=lambda item: item.uri)


def estimate(objects: Sequence[ObjectInfo], limits: ShardLimits, *, record_bytes: float | None) -> Estimate:
    """Return the estimated size of a run; `record_bytes` is the average size of a record, None if unknown."""
    size_bytes = sum(item.size_bytes for item in objects)
    records = size_bytes / record_bytes if record_bytes else 0.0
    fill = max(size_bytes / limits.max_bytes, records / limits.max_records)
    compressed = sum(item.uri.endswith(COMPRESSED) for item in objects)
    return Estimate(len(objects), size_bytes, math.ceil(fill), round(records) if record_bytes else None, compressed)
