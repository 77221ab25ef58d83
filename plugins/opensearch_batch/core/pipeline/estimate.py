"""How many shards and jobs a listing of objects would make, from names and sizes alone.

The cuts are those of `cut`; only how many records an object has is guessed, from the size of the samples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.sharding.cut import ShardLimits, ends_with
from opensearch_batch.core.storage.compression import COMPRESSED
from opensearch_batch.core.storage.objects import split_uri, wanted
from opensearch_batch.core.types.object_info import ObjectInfo

# A line of `aws s3 ls --recursive`: date, time, size, key.
_LISTED = re.compile(r"\s*\d{4}-\d{2}-\d{2}\s+\d{2}:\d{2}:\d{2}\s+(?P<size>\d+)\s+(?P<key>\S.*?)\s*")


class Estimate(msgspec.Struct, frozen=True):
    """What a source would become; `records` is None when there is no sample to guess from."""

    objects: int
    bytes: int
    shards: int
    records: int | None = None
    compressed: int = 0


def read_listing(text: str, uri: str, *, include: Sequence[str], exclude: Sequence[str]) -> list[ObjectInfo]:
    """Return the objects of a source in what ``aws s3 ls --recursive`` printed.

    Raises:
        ConfigError: a line is none of a listing, or no object is one of the source.
    """
    bucket, prefix = split_uri(uri)
    folder = prefix.rpartition("/")[0]
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        listed = _LISTED.fullmatch(line)
        if listed is None:
            raise ConfigError(f"line {number}: no line of `aws s3 ls --recursive`: {line!r}")
        key = listed["key"]
        if (
            key.startswith(prefix)
            and not key.endswith("/")
            and wanted(key[len(folder) :].lstrip("/"), include, exclude)
        ):
            found.append(ObjectInfo(f"s3://{bucket}/{key}", int(listed["size"]), ""))
    if not found:
        raise ConfigError(f"no object of the listing is below {uri}; list that bucket with --recursive")
    return sorted(found, key=lambda item: item.uri)


def estimate(found: Sequence[ObjectInfo], limits: ShardLimits, *, record_bytes: float | None) -> Estimate:
    """Return how many shards these objects would make.

    Args:
        found: the objects, in key order.
        limits: where a shard is cut.
        record_bytes: the size of a record; None when nobody knows.
    """
    shards, records, size_bytes, all_records = 0, 0.0, 0.0, 0.0
    for item in found:
        of_item = item.size_bytes / record_bytes if record_bytes else 0.0
        all_records += of_item
        share = limits.fill(of_item, item.size_bytes)
        fill = limits.fill(records, size_bytes) + share
        whole = int(fill)
        shards += whole
        left = (fill - whole) / share if share else 0.0
        records, size_bytes = (
            (records + of_item, size_bytes + item.size_bytes) if not whole else (left * of_item, left * item.size_bytes)
        )
        if ends_with(item.uri, fill=limits.fill(records, size_bytes), share=share) and size_bytes:
            shards, records, size_bytes = shards + 1, 0.0, 0.0
    return Estimate(
        len(found),
        sum(item.size_bytes for item in found),
        shards + bool(size_bytes),
        round(all_records) if record_bytes else None,
        sum(item.uri.endswith(COMPRESSED) for item in found),
    )
