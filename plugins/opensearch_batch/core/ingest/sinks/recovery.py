"""Recovery after an interruption: documents that the index already contains are not written again.

The interrupted attempt may have written documents after its last recorded progress. They are fetched (`_mget`) and
compared, until more consecutive bytes are absent than can have been in flight. A document whose id OpenSearch generated
cannot be fetched, so it is written again. If a document is written again, later documents with its id are too.
Documents with an external version are written again: the index accepts an equal version and refuses a lower one
(docs/decisions/019).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from opensearch_batch.core.errors import BatchError, ConfigError, RetriableError
from opensearch_batch.core.ingest.sinks.base import Entry, Item
from opensearch_batch.core.ingest.sinks.bulk_lines import address_of, has_document, is_versioned
from opensearch_batch.core.opensearch.cluster import Cluster, Index, reason_of, type_of
from opensearch_batch.core.types.rows import Unchanged

BATCH_BYTES = 2_000_000
FORBIDDEN_TYPE = "security_exception"
Address = tuple[tuple[str, str], ...]


def skip_indexed(
    entries: Iterable[Entry], cluster: Cluster, index: Index, *, in_flight_bytes: int
) -> Iterator[Entry | Unchanged]:
    """Yield the entries, with `Unchanged` instead of each document that the index already contains.

    The entries are those after the recorded progress, in the order of the interrupted attempt, which had bodies of at
    most `in_flight_bytes` in flight.
    """
    stream = iter(entries)
    absent_bytes = 0
    sent = set[Address]()
    while absent_bytes < in_flight_bytes:
        batch = _next_batch(stream)
        if not batch:
            return
        indexed = _indexed_positions(batch, cluster, index)
        for position, entry in enumerate(batch):
            address = _address_of(entry)
            if position in indexed and isinstance(entry, Item) and address not in sent:
                yield Unchanged(entry.context)
            else:
                if address is not None:
                    sent.add(address)
                yield entry
        absent_bytes = 0 if indexed else absent_bytes + sum(entry.size_bytes for entry in batch)
    yield from stream


def _next_batch(stream: Iterator[Entry]) -> list[Entry]:
    batch: list[Entry] = []
    size = 0
    for entry in stream:
        batch.append(entry)
        size += entry.size_bytes
        if size >= BATCH_BYTES:
            break
    return batch


def _indexed_positions(batch: list[Entry], cluster: Cluster, index: Index) -> set[int]:
    """Return the positions in the batch of the documents that the index already contains."""
    items = {
        position: entry
        for position, entry in enumerate(batch)
        if isinstance(entry, Item) and entry.id and has_document(entry) and not is_versioned(entry)
    }
    if not items:
        return set()
    addresses = [address_of(item) for item in items.values()]
    path = f"/{index.name}/_mget" if index.name else "/_mget"
    response = cluster.call("POST", path, {"docs": addresses}, timeout_s=120.0)
    for document in response["docs"]:
        if "error" in document:
            raise unreadable(document, index.name)
    return {
        position
        for (position, item), document in zip(items.items(), response["docs"], strict=True)
        if document.get("_source") is not None
        and _comparable(document["_source"], index) == _comparable(_document(item), index)
    }


def unreadable(document: dict[str, Any], index: str) -> BatchError:
    """Return the error for an unreadable document, which must not be treated as absent."""
    cause = f"index {index}: a document that is to be compared cannot be read: {reason_of(document)}"
    if type_of(document) == FORBIDDEN_TYPE:
        return ConfigError(f"{cause}; grant the connection's user this permission")
    return RetriableError(f"{cause}; run again when the index is available")


def _document(item: Item) -> object:
    return json.loads(item.content.split(b"\n", 1)[1])


def _comparable(source: object, index: Index) -> str:
    """Return a string that is equal only for equal documents; in Python, True equals 1."""
    for vector in index.vectors:
        _round(source, vector.name.split("."))
    return json.dumps(source, sort_keys=True)


def _round(node: Any, path: list[str]) -> None:  # noqa: ANN401 - any JSON
    """Round the vectors at a path to 32 bits, like an index that derives `_source` from its stored vectors."""
    for parent in node if isinstance(node, list) else [node]:
        if not isinstance(parent, dict):
            continue
        for members in range(1, len(path) + 1):
            name, rest = ".".join(path[:members]), path[members:]
            if rest and name in parent:
                _round(parent[name], rest)
            elif name in parent and isinstance(parent[name], list):
                parent[name] = array("f", parent[name]).tolist()


def _address_of(entry: Entry) -> Address | None:
    """Return the address of the document that an entry writes or deletes, or None if it has no id or is not an item."""
    return tuple(address_of(entry).items()) if isinstance(entry, Item) and entry.id else None
