"""A cleared run keeps the places of its shards."""

from __future__ import annotations

from opensearch_batch.core.runs.shard_places import in_all_places, places_of
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.types.manifest import Shard
from tests.core.memory_objects import MemoryObjects
from tests.manifests import manifest_of

URI = "s3://w/p/run/manifest.json"


def test_a_run_keeps_as_many_places_as_an_attempt_ever_had() -> None:
    """Three shards, then one, then none, then two; a run without a manifest has no places."""
    objects = MemoryObjects()
    assert in_all_places([], places_of(objects, URI)) == []
    for count in (3, 1, 2):
        shards = [Shard(str(number)) for number in range(count)]
        save(objects, URI, manifest_of(shards=shards, mapped=max(count, places_of(objects, URI))))
        assert in_all_places(shards, places_of(objects, URI)) == [*shards, *[Shard("")] * (3 - count)]
        assert in_all_places([], places_of(objects, URI)) == [Shard("")] * 3
