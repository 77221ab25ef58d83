"""The OpenSearch sink: an index, or the indexes that documents name.

An attempt that resumes does not write documents again that the index already contains, unless they have an external
version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.ingest.request import MAX_BODY_BYTES, MAX_IN_FLIGHT, IngestRequest, check_index_name
from opensearch_batch.core.ingest.sinks.base import Attempt, Entry, Item, WrittenBody
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter, index_deleted
from opensearch_batch.core.ingest.sinks.bulk_lines import fields_of, has_document
from opensearch_batch.core.ingest.sinks.index_target import check_target, open_target
from opensearch_batch.core.ingest.sinks.load_settings import during_load
from opensearch_batch.core.ingest.sinks.recovery import skip_indexed
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.vector_field import VectorField

# The interrupted attempt may have been configured with larger bodies than this attempt.
DEFAULT_IN_FLIGHT_BYTES = MAX_IN_FLIGHT * MAX_BODY_BYTES
SAMPLED_ENTRIES = 100
# Without a mapping, a flat array of at least this many numbers counts as a vector.
MIN_DIMENSION = 16
_NO_INDEX = Index("", "", (), {}, {})


class IndexSink:
    """Writes documents to the index of a request, or to the indexes that documents name if the request names none.

    With `infers_vectors`, an index without mappings is created with vector fields for the vectors of the first
    document. With `refreshes`, the written indexes are refreshed at the end.
    """

    can_resume = True

    def __init__(
        self,
        objects: Objects,
        cluster: Cluster,
        request: IngestRequest,
        *,
        name: str | None = None,
        infers_vectors: bool = False,
        refreshes: bool = True,
    ) -> None:
        self.request = request
        self.name = request.index if name is None else name
        self._objects = objects
        self._cluster = cluster
        self._infers_vectors = infers_vectors
        self._refreshes = refreshes
        self._index = _NO_INDEX
        # The indexes that documents named, if the request names none.
        self._named: dict[str, Index] = {}

    @property
    def identity(self) -> Sequence[str]:
        """Name and UUID of the index; an index that is created again has another UUID."""
        return self._index.name, self._index.uuid

    @property
    def vectors(self) -> Sequence[VectorField]:
        return self._index.vectors

    def open(self, sample: Callable[[], Iterable[Entry]]) -> str | None:
        """Look up the index, or create it; return a remark on how, or raise ConfigError if that is impossible."""
        if not self.request.index:
            return None
        body = self.request.index_body or {}
        dimensions = {}
        if self._infers_vectors and not body.get("mappings") and check_target(self._cluster, self.request) is None:
            dimensions = _dimensions(sample())
        if not dimensions:
            self._index, remark = open_target(self._cluster, self.request)
            return remark
        request = msgspec.structs.replace(self.request, index_body=with_vectors(body, dimensions))
        fields = ", ".join(f"{name} ({size} values)" for name, size in dimensions.items())
        self._index, _ = open_target(self._cluster, request)
        return f"index {request.index} was absent and was created with knn_vector fields: {fields}"

    def ensure_index(self, name: str) -> None:
        """Create an index that a document names, if it is absent; raise RecordRejected for an invalid name."""
        if name not in self._named:
            try:
                check_index_name(name)
            except ConfigError as error:
                raise RecordRejected(str(error)) from None
            self._named[name], _ = open_target(self._cluster, msgspec.structs.replace(self.request, index=name))

    @contextmanager
    def during(self, attempt: Attempt) -> Iterator[None]:
        """Apply the load settings while the attempt writes; they are restored at its end."""
        with during_load(self._objects, self._cluster, self._index, self.request.load, attempt=attempt):
            yield

    def write(self, entries: Iterable[Entry], attempt: Attempt) -> Iterator[WrittenBody]:
        """Write documents by bulk requests; after an interruption, skip documents that the index already contains."""
        request = self.request
        rest: Iterable[Any] = entries
        if attempt.resumes:
            in_flight_bytes = max(request.max_in_flight * request.max_body_bytes, DEFAULT_IN_FLIGHT_BYTES)
            rest = skip_indexed(entries, self._cluster, self._index, in_flight_bytes=in_flight_bytes)
        return BulkWriter(self._cluster, request, still_claimed=attempt.still_claimed).write(rest)

    def finish(self) -> None:
        """Refresh the written indexes; raise ConfigError if the index was deleted meanwhile, or created again."""
        if self._refreshes:
            for name in [self._index.name] if self._index.name else self._named:
                self._cluster.refresh(name)
        if self._index.name:
            current = self._cluster.index(self._index.name)
            if current is None or current.uuid != self._index.uuid:
                raise index_deleted(self._index.name)


def _dimensions(sample: Iterable[Entry]) -> dict[str, int]:
    """Return the number of values in each vector of the first document, by field."""
    for entry in islice(sample, SAMPLED_ENTRIES):
        if isinstance(entry, Item) and has_document(entry):
            return {name: len(value) for name, value in fields_of(entry).items() if is_vector(value)}
    return {}


def is_vector(value: object) -> bool:
    """Return whether a value looks like a vector: a flat array of many numbers, not all of them integers."""
    if not isinstance(value, list) or len(value) < MIN_DIMENSION:
        return False
    return all(type(number) in (int, float) for number in value) and any(type(number) is float for number in value)


def with_vectors(body: dict[str, Any], dimensions: dict[str, int]) -> dict[str, Any]:
    """Return the body of an index with vector fields, for the Lucene engine, which every node has."""
    method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
    fields = {name: {"type": "knn_vector", "dimension": size, "method": method} for name, size in dimensions.items()}
    return {**body, "settings": {**body.get("settings", {}), "index.knn": True}, "mappings": {"properties": fields}}
