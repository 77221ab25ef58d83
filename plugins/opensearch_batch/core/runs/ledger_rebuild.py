"""Rebuilds the ledger of a scope from its index, and the head of a prediction store from its segments.

The index has the ids of the documents, but not their records; the rebuilt rows have a hash that no record has. So the
next run compares the source with them, writes every document again from the prediction store, and finds the documents
whose records are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.ledger.head import Entry, Head, ScopeHead
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import (
    DOCUMENT_STATES,
    UNKNOWN_HASH,
    RecordState,
    RowsReader,
    RowsWriter,
    are_any_of,
    with_verdicts,
)
from opensearch_batch.core.ledger.rows_builder import rows_table
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.runs.ledger_check import has_files, read_heads, store_folders
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import ScopeClaim

if TYPE_CHECKING:
    import pyarrow as pa

PAGE, SCROLL = 5_000, "5m"
RUN_KEY = "ledger rebuild"


def rebuild_stores(objects: Objects, layout: Layout) -> list[str]:
    """Rebuild the heads of the pipeline's prediction stores; return the reasons why segments are left out."""
    stores = (PredictionStore(objects, folder) for folder in store_folders(objects, layout))
    return [reason for store in stores for reason in store.rebuild(partial(has_files, objects, layout))]


def rebuild_scope(objects: Objects, layout: Layout, cluster: Cluster, *, scope: str, index: str) -> int:
    """Rebuild the head and the rows of a scope from the documents of an index; return their number.

    Documents that another scope of the pipeline has are left out. A run of the scope that is not finished loses its
    claim.

    Raises:
        ConfigError: there is no such index.
        FatalError: rows of another scope are missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    current = cluster.index(index)
    if current is None:
        raise ConfigError(f"OpenSearch {cluster.name}: no index {index!r}; give the index of the pipeline")
    heads, _ = read_heads(objects, layout)
    before = heads.pop(scope, None) or Head()
    others = [ids for head in heads.values() if head.index_uuid == current.uuid for ids in _ids(objects, head)]
    known = pa.chunked_array(others, pa.string())
    writer, version, uri = RowsWriter(objects, layout.scope_rows(scope)), before.claim.version, f"index:{index}"
    cluster.refresh(index)
    for rows in _documents(cluster, index):
        own = rows.filter(pc.invert(pc.is_in(rows["id"], value_set=known)))
        writer.add(uri, own)
        version = max(version, pc.max(own["version"]).as_py() or 0)
    part = writer.close().get(uri)
    entries = {}
    if part is not None:
        # No run knows yet which answers the documents need.
        segments = dict.fromkeys(_segments(objects, layout), 0)
        entries[uri] = Entry(part.rows, part.first, part.count, part.states, etag="", segments=segments)
    # A run in progress must not take this commit for its own one.
    version += 1
    head = Head(
        claim=ScopeClaim(version, RUN_KEY),
        committed=version,
        index=index,
        index_uuid=current.uuid,
        objects=entries,
        deletions=before.deletions,
        predictions=before.predictions,
        savings=before.savings,
    )
    ScopeHead(objects, layout.scope_head(scope)).write(head, after=before)
    return head.documents


def _segments(objects: Objects, layout: Layout) -> Iterator[str]:
    for folder in store_folders(objects, layout):
        try:
            yield from PredictionStore(objects, folder).head().segments
        except FatalError:
            # A damaged head is rebuilt separately.
            continue


def _ids(objects: Objects, head: Head) -> Iterator[pa.Array]:
    """Yield the ids of the documents of a scope."""
    import pyarrow as pa

    reader = RowsReader(objects)
    for entry in head.objects.values():
        for rows in reader.read(entry, ("id", "state")):
            documents = rows.filter(pa.array(are_any_of(rows["state"].to_numpy(), DOCUMENT_STATES)))
            yield documents["id"].combine_chunks()


def _documents(cluster: Cluster, index: str) -> Iterator[pa.Table]:
    """Yield rows of all documents of an index."""
    import numpy as np

    for hits in _pages(cluster, index):
        count = len(hits)
        rows = rows_table(
            ids=[hit["_id"] for hit in hits],
            routings=[hit.get("_routing") for hit in hits],
            lines=[0] * count,
            hashes=UNKNOWN_HASH * count,
            keys=b"",
            key_offsets=[0] * (count + 1),
            states=[RecordState.INDEXED] * count,
            line_bytes=[0] * count,
        )
        versions = np.array([hit["_version"] for hit in hits], np.int64)
        yield with_verdicts(rows, rows["state"].to_numpy(), versions)


def _pages(cluster: Cluster, index: str) -> Iterator[list[dict[str, Any]]]:
    body = {"size": PAGE, "sort": ["_doc"], "_source": False, "version": True}
    page = cluster.call("POST", f"/{index}/_search", body, params={"scroll": SCROLL}, timeout_s=120.0)
    try:
        while page["hits"]["hits"]:
            yield page["hits"]["hits"]
            scroll = {"scroll": SCROLL, "scroll_id": page["_scroll_id"]}
            page = cluster.call("POST", "/_search/scroll", scroll, timeout_s=120.0)
    finally:
        cluster.call("DELETE", "/_search/scroll", {"scroll_id": page["_scroll_id"]})
