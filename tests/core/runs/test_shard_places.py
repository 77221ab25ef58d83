"""A cleared run keeps the places of its shards."""

from __future__ import annotations

from opensearch_batch.core.runs.shard_places import in_all_places, keeping_places
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.types.manifest import Manifest, Shard
from tests.core.memory_objects import MemoryObjects

URI = "s3://w/p/run/manifest.json"


def test_a_run_keeps_as_many_places_as_an_attempt_ever_had() -> None:
    """Three shards, then one, then none, then two; a run without a manifest has no places."""
    objects = MemoryObjects()
    assert in_all_places(objects, URI, []) == []
    for count in (3, 1, 2):
        shards = [Shard(str(number)) for number in range(count)]
        manifest = Manifest(
            pipeline="p",
            run_key="r",
            source="s3://d/",
            scope="s",
            service="openai",
            model_id="m",
            index="i",
            shards=shards,
        )
        save(objects, URI, keeping_places(objects, URI, manifest))
        assert in_all_places(objects, URI, shards) == [*shards, *[Shard("")] * (3 - count)]
        assert in_all_places(objects, URI, []) == [Shard("")] * 3
