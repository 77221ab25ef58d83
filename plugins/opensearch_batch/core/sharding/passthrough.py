"""Passthrough: source objects that are service-ready are submitted unchanged; each object is a shard.

An object that is not a valid job input is an error, because its lines cannot be changed or left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.formats.jsonl import entry_of
from opensearch_batch.core.sharding.listing import Listing
from opensearch_batch.core.storage.objects import Objects, lf_lines
from opensearch_batch.core.types.manifest import PrepareCounts, PreparedShard, Shard, SourceRange
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.rows import Rejected, Row
from opensearch_batch.core.types.shard_limits import ShardLimits


def passthrough_shards(
    objects: Objects, listing: Listing, *, limits: ShardLimits, job_key: Callable[[str], str]
) -> tuple[list[PreparedShard], PrepareCounts]:
    """Return a shard for each object of a source.

    Raises:
        ConfigError: an object is not a valid job input.
    """
    for shorter, longer in pairwise(sorted(item.uri for item in listing.objects)):
        if longer.startswith(shorter):
            cause = f"{longer} starts with this URI, and services read all objects with this prefix; rename one of them"
            raise ConfigError(f"{shorter}: {cause}")
    shards = [_shard(objects, number, item, limits, job_key) for number, item in enumerate(listing.objects)]
    records = sum(prepared.shard.records for prepared in shards)
    return shards, PrepareCounts(records, records)


def _shard(
    objects: Objects, number: int, item: ObjectInfo, limits: ShardLimits, job_key: Callable[[str], str]
) -> PreparedShard:
    digest, size_bytes, records, limit = hashlib.sha256(), 0, 0, limits.row_limit
    with objects.open(item.uri, etag=item.etag) as stream:
        for line in lf_lines(stream, max_line_bytes=limit.max_bytes):
            entry = entry_of(line, 0, item.uri, limit)
            if not isinstance(entry, Row):
                reason = entry.reason if isinstance(entry, Rejected) else "the line is empty"
                raise ConfigError(f"{item.uri} line {line.number}: {reason}; correct the line, or use prepare: true")
            digest.update(line.content + b"\n")
            size_bytes += len(line.content) + 1
            records += 1
    if not limits.min_records <= records <= limits.max_records or size_bytes > limits.max_bytes:
        raise ConfigError(
            f"{item.uri}: {records} records, {size_bytes} bytes; a job accepts {limits.min_records} to "
            f"{limits.max_records} records and at most {limits.max_bytes} bytes; split the object, or use prepare: true"
        )
    shard = Shard(f"{number:04d}", item.uri, job_key(digest.hexdigest()), records, size_bytes, etag=item.etag)
    return PreparedShard(shard, [SourceRange(item.uri, 1, records)])
