"""Groups of a run's shards: Airflow maps tasks over them.

Airflow maps over at most `[core] max_map_length` values, and to start a task takes as long as to write thousands of
documents. So a task has several shards if these are small, or very many.

When a run is cleared, Airflow 3.3 marks mapped tasks as removed if the attempt before had no value for them, and never
runs them again. So an attempt never returns fewer groups than an earlier one; empty groups are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import Manifest, Shard, ShardGroup

# Above it, more tasks do not make a run faster, because Airflow starts few of them a second.
MAX_GROUPS = 128
# A task writes these documents in about the time that it takes to start.
MIN_DOCUMENTS = 5_000
# The tasks of a group wait for the slowest of its jobs, so it has more shards only if there would be too many groups.
MAX_SHARDS = 64
T = TypeVar("T")


def grouped(shards: Sequence[Shard], *, at_most: int = MAX_GROUPS) -> list[ShardGroup]:
    """Return groups of consecutive shards, at most `at_most` (2 or more).

    Shards with and without a job are in different groups, so that those without one do not wait.
    """
    groups = list[ShardGroup]()
    for kind in ([each for each in shards if each.job], [each for each in shards if not each.job]):
        by_size = max(sum(shard.documents for shard in kind) // MIN_DOCUMENTS, -(-len(kind) // MAX_SHARDS))
        share = at_most * len(kind) // max(len(shards), at_most)
        groups += map(ShardGroup.of, chunks(kind, at_most=max(min(by_size, share), 1)))
    return groups


def chunks(values: Sequence[T], *, at_most: int) -> list[Sequence[T]]:
    """Return the values in at most `at_most` chunks, which differ by at most one in their length."""
    count = min(len(values), at_most)
    if not count:
        return []
    ends = [len(values) * number // count for number in range(count + 1)]
    return [values[first:end] for first, end in pairwise(ends)]


def group_count(objects: Objects, uri: str) -> int:
    """Return the largest number of groups of all attempts of a run so far; `uri` is the location of its manifest."""
    manifest = JsonDocument(objects, uri, Manifest).read()
    return 0 if manifest is None else manifest.mapped


def with_empty_groups(groups: Sequence[ShardGroup], count: int) -> list[ShardGroup]:
    """Return the groups of an attempt, and empty ones up to this number."""
    return [*groups, *[ShardGroup()] * (count - len(groups))]
