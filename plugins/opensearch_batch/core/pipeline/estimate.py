"""Estimates the shards and jobs of a source from the names and sizes of its objects.

Shards are cut as in `core.sharding.cut`. The number of records per object is estimated from the average size of the
sample records.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.sharding.cut import ShardLimits, ends_after
from opensearch_batch.core.storage.compression import COMPRESSED
from opensearch_batch.core.storage.globs import SourceUri
from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.types.object_info import ObjectInfo

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
    """Return the objects of a source from the output of ``aws s3 ls --recursive``.

    Raises:
        ConfigError: a line cannot be parsed, or no listed object belongs to the source.
    """
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
    """Return the estimated size of a run over objects.

    Args:
        objects: the objects, in key order.
        limits: the limits of a shard.
        record_bytes: average size of a record; None if unknown.
    """
    shards, records, size_bytes, all_records = 0, 0.0, 0.0, 0.0
    for item in objects:
        item_records = item.size_bytes / record_bytes if record_bytes else 0.0
        all_records += item_records
        share = limits.fill(item_records, item.size_bytes)
        fill = limits.fill(records, size_bytes) + share
        full = int(fill)
        shards += full
        rest = (fill - full) / share if share else 0.0
        records, size_bytes = (
            (records + item_records, size_bytes + item.size_bytes)
            if not full
            else (rest * item_records, rest * item.size_bytes)
        )
        if ends_after(item.uri, fill=limits.fill(records, size_bytes), share=share) and size_bytes:
            shards, records, size_bytes = shards + 1, 0.0, 0.0
    return Estimate(
        len(objects),
        sum(item.size_bytes for item in objects),
        shards + bool(size_bytes),
        round(all_records) if record_bytes else None,
        sum(item.uri.endswith(COMPRESSED) for item in objects),
    )
