"""Places of a run's shards in Airflow, which maps a task over them.

When a run is cleared, Airflow 3.3 marks the mapped tasks as removed for which the attempt before had no shard, and
never runs them again. So a place that an attempt of a run had once stays; a place without a shard is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import Manifest, Shard


def places_of(objects: Objects, uri: str) -> int:
    """Return the largest number of shards of all attempts of a run so far; `uri` is the location of its manifest."""
    manifest = JsonDocument(objects, uri, Manifest).read()
    return 0 if manifest is None else manifest.mapped


def in_all_places(shards: Sequence[Shard], places: int) -> list[Shard]:
    """Return the shards of an attempt, and one without an id for each other place of the run."""
    return [*shards, *[Shard("")] * (places - len(shards))]
