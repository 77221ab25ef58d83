"""Whole runs of a pipeline that reads an index in memory, and writes to another index, or in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.runs.index_objects import IndexObjects
from opensearch_batch.core.runs.index_source import SourceIndex
from opensearch_batch.core.sharding.listing import INDEX_SCHEME, Listing, index_uri, list_source
from opensearch_batch.core.storage.by_uri import Scheme, Stores
from opensearch_batch.core.storage.objects import Objects
from tests.core.memory_indexes import MemoryIndex, MemoryIndexes
from tests.core.whole_runs import INPUTS, Pipeline

SOURCE, TARGET = "products", "books"
VECTOR = {"type": "knn_vector", "dimension": 2}
PREDICTIONS = {"_id": "$._id", "v": "prediction"}


class IndexPipeline(Pipeline):
    """A pipeline whose source is an index; it writes in place, or to the index `TARGET`."""

    def __init__(
        self,
        service: str = "openai",
        *,
        in_place: bool = True,
        shards: int = 1,
        query: dict[str, Any] | None = None,
        version_field: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(service, source_format="jsonl", **options)
        self.indexes = MemoryIndexes(self.life.step)
        self.cluster = self.indexes  # type: ignore[assignment] # answers what its base answers
        self.source = self.indexes.create(SOURCE, shards=shards, v=VECTOR, at={"type": "long"})
        target = self.source if in_place else self.indexes.create(TARGET, v=VECTOR)
        self.index, self.target = target.name, target
        self.settings = SourceIndex("c", SOURCE, in_place, ("v",), query, version_field)
        fields: list[str | None] = [] if in_place else ["$.*"]
        self.request = IngestRequest(
            target.name,
            dict(PREDICTIONS),
            fields,
            on_unmatched="dead_letter",
            max_in_flight=1,
            routing="$._routing",
        )
        self.in_place = in_place
        self.source_prefix = index_uri("c", SOURCE)

    @property
    def documents(self) -> dict[str, Any]:
        """The documents of the index that is written."""
        return self.target_index.documents

    @property
    def target_index(self) -> MemoryIndex:
        """The index that is written."""
        return self.indexes.indexes[self.index]

    @contextmanager
    def opened(self, source: str) -> Iterator[tuple[Objects, Listing]]:
        """Open the source."""
        with self.settings.objects(self.indexes, source, INPUTS) as blocks:
            store = Stores({"s3": Scheme(lambda: self.objects), INDEX_SCHEME: Scheme(lambda: blocks)})
            yield store, list_source(store, source)

    def blocks(self) -> IndexObjects:
        """Return the documents as objects."""
        return self.settings.objects(self.indexes, self.source_prefix, INPUTS)
