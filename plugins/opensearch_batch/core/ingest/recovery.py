"""After a crash, what the index holds already is not written again.

Only the documents behind the last recorded progress are in doubt. They are fetched (`_mget`) and compared, until so
many bytes in a row were not there that no body can have been in flight any more. A document to which the index gave an
id cannot be found again: it is written again. What comes after another one that is written again under the same id is
written again as well, whatever the index holds now: the earlier one would lie over it.
docs/decisions/007 says why not versions.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from opensearch_batch.core.errors import BatchError, ConfigError, RetriableError
from opensearch_batch.core.ingest.bulk import Item
from opensearch_batch.core.opensearch.cluster import Cluster, Index, reason_of, type_of
from opensearch_batch.core.types.rows import AlreadyThere

BATCH_BYTES = 2_000_000
FORBIDDEN_TYPE = "security_exception"
Address = tuple[tuple[str, str], ...]


def without_those_there(
    entries: Iterable[Any], cluster: Cluster, index: Index, *, in_flight_bytes: int
) -> Iterator[Any]:
    """Yield the entries, those in place of which the index holds an equal document as `AlreadyThere`.

    Args:
        entries: what comes after the recorded progress, in the order of the interrupted run.
        cluster: where the index is.
        index: it, with its vectors.
        in_flight_bytes: how much can have been under way at once.
    """
    stream = iter(entries)
    absent_bytes = 0
    sent = set[Address]()
    while absent_bytes < in_flight_bytes:
        batch = _take(stream)
        if not batch:
            return
        there = _equal_ones(batch, cluster, index)
        for at, entry in enumerate(batch):
            address = _place_of(entry)
            if at in there and address not in sent:
                yield AlreadyThere(entry.origin)
            else:
                if address is not None:
                    sent.add(address)
                yield entry
        absent_bytes = 0 if there else absent_bytes + sum(entry.size_bytes for entry in batch)
    yield from stream


def _take(stream: Iterator[Any]) -> list[Any]:
    batch: list[Any] = []
    size = 0
    for entry in stream:
        batch.append(entry)
        size += entry.size_bytes
        if size >= BATCH_BYTES:
            break
    return batch


def _equal_ones(batch: list[Any], cluster: Cluster, index: Index) -> set[int]:
    items = {at: entry for at, entry in enumerate(batch) if isinstance(entry, Item) and entry.id and entry.has_document}
    if not items:
        return set()
    wanted = [_address(item) for item in items.values()]
    path = f"/{index.name}/_mget" if index.name else "/_mget"
    answer = cluster.call("POST", path, {"docs": wanted}, timeout_s=120.0)
    for found in answer["docs"]:
        if "error" in found:
            raise _explain(found, index.name)
    return {
        at
        for (at, item), found in zip(items.items(), answer["docs"], strict=True)
        if found.get("_source") is not None and _text(found["_source"], index) == _text(_sent(item), index)
    }


def _explain(found: dict[str, Any], index: str) -> BatchError:
    """Make an error of a document that cannot be read; taken as absent, it would silently be written again."""
    place = f"index {index}: what a crash left in doubt cannot be read: {reason_of(found)}"
    if type_of(found) == FORBIDDEN_TYPE:
        return ConfigError(f"{place}; give the connection's user this permission")
    return RetriableError(f"{place}; run again when the index is there and well")


def _sent(item: Item) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(item.lines.split(b"\n", 1)[1])


def _text(source: Any, index: Index) -> str:  # noqa: ANN401 - any JSON
    """Return a document as a text that is the same for equal ones only: to Python, true equals 1."""
    for vector in index.vectors:
        _round(source, vector.name.split("."))
    return json.dumps(source, sort_keys=True)


def _round(node: Any, path: list[str]) -> None:  # noqa: ANN401 - any JSON
    """Round the vectors at a path to 32 bits, as an index that derives `_source` from what it searches gives them."""
    for each in node if isinstance(node, list) else [node]:
        if not isinstance(each, dict):
            continue
        for members in range(1, len(path) + 1):
            name, rest = ".".join(path[:members]), path[members:]
            if rest and name in each:
                _round(each[name], rest)
            elif name in each and isinstance(each[name], list):
                each[name] = array("f", each[name]).tolist()


def _place_of(entry: Any) -> Address | None:  # noqa: ANN401 - of a stream of any entries
    """Return where an entry is written, a delete too; None where the index makes the id, or nothing is written."""
    return tuple(_address(entry).items()) if isinstance(entry, Item) and entry.id else None


def _address(item: Item) -> dict[str, str]:
    """Return where a document is found again."""
    ((_, head),) = json.loads(bytes(item.pieces[0]).split(b"\n", 1)[0]).items()
    return {name: head[name] for name in ("_id", "_index", "routing") if name in head}
