"""Places of a run's shards in Airflow, which maps a task over them.

When a run is cleared, Airflow 3.3 marks the mapped tasks as removed for which the attempt before had no shard, and
never runs them again. So a place that an attempt of a run had once stays; a place without a shard is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import Manifest, Shard


def keeping_places(objects: Objects, uri: str, manifest: Manifest) -> Manifest:
    """Return a manifest with the largest number of shards of all attempts so far; the last one's is at `uri`."""
    return msgspec.structs.replace(manifest, mapped=max(len(manifest.shards), _places(objects, uri)))


def in_all_places(objects: Objects, uri: str, shards: Sequence[Shard]) -> list[Shard]:
    """Return the shards of an attempt, and one without an id for each other place of the run."""
    return [*shards, *[Shard("")] * (_places(objects, uri) - len(shards))]


def _places(objects: Objects, uri: str) -> int:
    manifest = JsonDocument(objects, uri, Manifest).read()
    return 0 if manifest is None else manifest.mapped
