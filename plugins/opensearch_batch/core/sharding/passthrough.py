"""Passthrough: source objects that are service-ready are submitted unchanged; each object is a shard.

An object that is not a valid job input is an error, because its lines cannot be changed or left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.sharding.record_reader import RecordReader
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.shard_limits import ShardLimits


def check_input_names(listed: Iterable[ObjectInfo]) -> None:
    """Raise ConfigError if an object's URI starts with that of another; a service would read both as one input."""
    for shorter, longer in pairwise(sorted(item.uri for item in listed)):
        if longer.startswith(shorter):
            cause = f"{longer} starts with this URI, and services read all objects with this prefix; rename one of them"
            raise ConfigError(f"{shorter}: {cause}")


def check_input_object(
    item: ObjectInfo, reader: RecordReader, dead: DeadLetters, *, records: int, limits: ShardLimits
) -> None:
    """Raise ConfigError if the object that `reader` has just read, with `records` records, is not a valid job input."""
    for letter in dead.unwritten():
        raise ConfigError(f"{item.uri} line {letter.line}: {letter.reason}; correct the line, or use prepare: true")
    if reader.blank:
        raise ConfigError(f"{item.uri}: a line is empty; remove it, or use prepare: true")
    if not limits.min_records <= records <= limits.max_records or item.size_bytes > limits.max_bytes:
        raise ConfigError(
            f"{item.uri}: {records} records, {item.size_bytes} bytes; a job accepts {limits.min_records} to "
            f"{limits.max_records} records and at most {limits.max_bytes} bytes; split the object, or use prepare: true"
        )
