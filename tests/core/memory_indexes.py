"""Indexes in memory with primary shards and sequence numbers: bulk requests, `_mget`, points in time, sorted searches.

`test_the_node_reads_and_guards_likewise` compares them with a node.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import NotFound
from opensearch_batch.core.opensearch.cluster import Cluster, Index, vector_fields

CONFLICT, MISSING = "version_conflict_engine_exception", "document_missing_exception"
LAST = (1 << 63) - 1


class Document(msgspec.Struct):
    """A document of a shard."""

    id: str
    routing: str | None
    source: dict[str, Any]
    seq_no: int
    version: int


class MemoryIndex:
    """One index."""

    def __init__(self, name: str, uuid: str, shards: int, properties: Mapping[str, Any]) -> None:
        self.name, self.uuid = name, uuid
        self.properties = dict(properties)
        self.shards: list[dict[str, Document]] = [{} for _ in range(shards)]
        self.next_seq_no = [0] * shards
        self.writes = 0

    @property
    def documents(self) -> dict[str, dict[str, Any]]:
        """The sources of all documents by id."""
        return {name: document.source for shard in self.shards for name, document in shard.items()}

    def put(self, name: str, source: Mapping[str, Any], routing: str | None = None, version: int | None = None) -> None:
        """Write a document."""
        shard = self.shard_of(name, routing)
        before = self.shards[shard].get(name)
        version = version or (before.version + 1 if before else 1)
        self.shards[shard][name] = Document(name, routing, dict(source), self._number(shard), version)

    def update(self, name: str, routing: str | None = None, **members: Any) -> None:
        """Change members of a document."""
        document = self.shards[self.shard_of(name, routing)][name]
        self.put(name, {**document.source, **members}, routing)

    def delete(self, name: str, routing: str | None = None) -> None:
        """Delete a document."""
        shard = self.shard_of(name, routing)
        del self.shards[shard][name]
        self._number(shard)

    def shard_of(self, name: str, routing: str | None) -> int:
        """Return the number of the shard of a document."""
        return zlib.crc32((routing or name).encode()) % len(self.shards)

    def write(self, action: str, members: Mapping[str, Any], body: Any) -> dict[str, Any]:
        """Do one action of a bulk request."""
        name, routing = members["_id"], members.get("routing")
        shard = self.shards[self.shard_of(name, routing)]
        current = shard.get(name)
        if action == "update":
            return self._update(current, members, body["doc"])
        version = members.get("version")
        if current is not None and version is not None and version < current.version:
            return {"status": 409, "error": {"type": CONFLICT, "reason": "higher version"}}
        self.writes += 1
        if action == "delete":
            if current is None:
                return {"status": 404, "result": "not_found"}
            self.delete(name, routing)
            return {"status": 200, "result": "deleted"}
        self.put(name, body, routing, version)
        return {"status": 200 if current else 201, "result": "updated" if current else "created"}

    def _update(self, current: Document | None, members: Mapping[str, Any], doc: Any) -> dict[str, Any]:
        if current is None:
            return {"status": 404, "error": {"type": MISSING, "reason": "document missing"}}
        if (members["if_seq_no"], members["if_primary_term"]) != (current.seq_no, 1):
            return {"status": 409, "error": {"type": CONFLICT, "reason": "required seqNo"}}
        if {**current.source, **doc} == current.source:
            return {"status": 200, "result": "noop", "_seq_no": current.seq_no}
        self.writes += 1
        self.update(current.id, current.routing, **doc)
        return {"status": 200, "result": "updated", "_seq_no": current.seq_no}

    def _number(self, shard: int) -> int:
        self.next_seq_no[shard] += 1
        return self.next_seq_no[shard] - 1


class MemoryIndexes(Cluster):
    """A cluster with indexes; `before_bulk` and `before_fetch` are called before such requests, like another writer."""

    def __init__(self, step: Callable[[], None] = lambda: None) -> None:
        self.name = "memory"
        self.indexes: dict[str, MemoryIndex] = {}
        self.before_bulk: Callable[[], None] = lambda: None
        self.before_fetch: Callable[[], None] = lambda: None
        self.bodies: list[Any] = []
        self.points: dict[str, list[list[Document]]] = {}
        self._step = step
        self._created = 0

    def create(self, name: str, *, shards: int = 1, **properties: Any) -> MemoryIndex:
        """Create an index, or create it again."""
        self._created += 1
        self.indexes[name] = MemoryIndex(name, f"u{self._created}", shards, properties)
        return self.indexes[name]

    def index(self, name: str) -> Index | None:
        """Return an index."""
        index = self.indexes.get(name)
        if index is None:
            return None
        mappings = {"properties": index.properties}
        settings = {"uuid": index.uuid, "number_of_shards": str(len(index.shards))}
        return Index(name, index.uuid, vector_fields(mappings), mappings, settings)

    def refresh(self, name: str) -> None:
        """Refresh an index."""

    def call(self, method: str, path: str, body: Any = None, **how: Any) -> Any:  # noqa: ARG002 - as the original
        """Answer a request."""
        if path == "/_search/point_in_time":
            for point in body["pit_id"]:
                self.points.pop(point, None)
            return {}
        if path.endswith("/point_in_time"):
            return self._open(path.split("/")[1])
        assert isinstance(body, bytes)
        self.before_bulk()
        self._step()
        answer = self._bulk(self.indexes[path.split("/")[1]], [json.loads(line) for line in body.splitlines()])
        self._step()
        return answer

    def text(self, method: str, path: str, body: Any, **how: Any) -> str:  # noqa: ARG002 - as the original
        """Answer a search or `_mget`."""
        body = json.loads(msgspec.json.encode(body))
        if not path.endswith("_mget"):
            self.bodies.append(body)
            return json.dumps(self.search(body))
        self.before_fetch()
        index = self.indexes[path.split("/")[1]]
        return json.dumps({"docs": [self._found(index, wanted) for wanted in body["docs"]]})

    def _open(self, name: str) -> dict[str, Any]:
        point = f"point {len(self.points)} of {name}"
        copies = [[msgspec.structs.replace(each) for each in shard.values()] for shard in self.indexes[name].shards]
        self.points[point] = copies
        return {"pit_id": point}

    def search(self, body: Any) -> Any:
        """Answer a search."""
        shards = self.points.get(body["pit"]["id"])
        if shards is None:
            raise NotFound("memory: no such context")
        if "slice" in body:
            assert body["slice"]["max"] == len(shards)
            shards = [shards[body["slice"]["id"]]]
        query = body.get("query")
        hits = [(_sort_values(body["sort"], each), each) for shard in shards for each in shard if _matches(query, each)]
        hits.sort(key=lambda hit: hit[0])
        after = body.get("search_after")
        page = [hit for hit in hits if after is None or hit[0] > after][: body["size"]]
        found = [_hit(values, document, body["_source"]) for values, document in page]
        for hit, (_, document) in zip(found, page, strict=True):
            hit["matched_queries"] = sorted(_matched_names(query, document))
        total = {"total": {"value": len(hits)}} if body["track_total_hits"] else {}
        return {"pit_id": body["pit"]["id"], "hits": {"hits": found, **total}}

    def _bulk(self, index: MemoryIndex, lines: list[Any]) -> Any:
        items = []
        while lines:
            ((action, members),) = lines.pop(0).items()
            items.append({action: index.write(action, members, lines.pop(0) if action != "delete" else None)})
        return {"errors": any("error" in each for item in items for each in item.values()), "items": items}

    def _found(self, index: MemoryIndex, wanted: Mapping[str, Any]) -> Any:
        document = index.shards[index.shard_of(wanted["_id"], wanted.get("routing"))].get(wanted["_id"])
        if document is None:
            return {"_id": wanted["_id"], "found": False}
        source = _filtered(document.source, wanted["_source"])
        return {"_id": document.id, "found": True, "_seq_no": document.seq_no, "_primary_term": 1, "_source": source}


def _sort_values(sort: Sequence[Mapping[str, Any]], document: Document) -> list[int]:
    names = [name for each in sort for name in each]
    return [document.seq_no if name == "_seq_no" else document.source.get(name, LAST) for name in names]


def _matches(query: Any, document: Document) -> bool:
    ((kind, body),) = query.items() if query else [("match_all", {})]
    if kind == "bool":
        wanted, unwanted = body.get("filter", []), body.get("must_not", [])
        return all(_matches(each, document) for each in wanted) and not any(
            _matches(each, document) for each in unwanted
        )
    if kind == "exists":
        return body["field"] in document.source
    for name, condition in body.items():
        value = document.seq_no if name == "_seq_no" else document.source.get(name)
        if kind == "term" and value != condition:
            return False
        if kind == "range" and not (value is not None and _in_range(value, condition)):
            return False
    return True


def _matched_names(query: Any, document: Document) -> Iterator[str]:
    """Yield the names of the queries that a document matches."""
    for body in (each["bool"] for each in [query] if each and "bool" in each):
        if "_name" in body and _matches({"bool": body}, document):
            yield body["_name"]
        for clause in (*body.get("filter", []), *body.get("should", [])):
            yield from _matched_names(clause, document)


def _in_range(value: int, limits: Mapping[str, Any]) -> bool:
    return limits.get("gte", value) <= value and ("lt" not in limits or value < limits["lt"])


def _hit(values: list[int], document: Document, fields: Any) -> dict[str, Any]:
    hit = {"_id": document.id, "sort": values, "_seq_no": document.seq_no, "_primary_term": 1}
    if document.routing is not None:
        hit["_routing"] = document.routing
    return hit if fields is False else {**hit, "_source": _filtered(document.source, fields)}


def _filtered(source: Mapping[str, Any], fields: Any) -> dict[str, Any]:
    return {name: value for name, value in source.items() if fields is True or name in fields}


def each_document(index: MemoryIndex) -> Iterator[Document]:
    """Yield all documents of an index."""
    for shard in index.shards:
        yield from shard.values()
