"""What the record ledger and the prediction store of a pipeline take on the object storage."""

from __future__ import annotations

from itertools import islice

import msgspec

from opensearch_batch.core.ledger.store_head import StoreHead
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.layout import Layout

MAX_LISTED_OBJECTS, FRESH_S = 5_000, 60.0


class LedgerStorage(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes.

    Attributes:
        answers: the number of predictions in the store, in `segments` files with `answers_bytes`.
        open_shards: the shards whose jobs have, or may have, been submitted and were not read yet.
        scopes: the number of scopes of the ledger, whose heads and rows are `ledger_objects` with `ledger_bytes`.
        is_complete: False if the ledger has more objects than were listed; then its three numbers are lower bounds.
        is_shared: the prediction store is shared by the pipelines of the work prefix.
    """

    answers: int
    answers_bytes: int
    segments: int
    open_shards: int
    scopes: int
    ledger_objects: int
    ledger_bytes: int
    is_complete: bool = True
    is_shared: bool = False


def ledger_storage(reader: CachedReader, layout: Layout, *, shared: bool = False) -> LedgerStorage:
    """Return what ledger and prediction store of a pipeline take, counted in the last minute.

    `shared` is that of `Layout.predictions`.
    """
    key = layout.predictions(shared=shared)
    return reader.value(f"{layout.scopes()} {key}", lambda: _counted(reader, layout, shared=shared), fresh_s=FRESH_S)


def _counted(reader: CachedReader, layout: Layout, *, shared: bool) -> LedgerStorage:
    scopes = layout.scopes()
    items = list(islice(reader.objects.list(scopes), MAX_LISTED_OBJECTS + 1))
    listed = items[:MAX_LISTED_OBJECTS]
    head = reader.read_one(f"{layout.predictions(shared=shared)}/head.json", StoreHead) or StoreHead()
    return LedgerStorage(
        answers=sum(segment.rows for segment in head.segments.values()),
        answers_bytes=sum(segment.bytes for segment in head.segments.values()),
        segments=len(head.segments),
        open_shards=len(head.open),
        scopes=len({item.uri.removeprefix(scopes).partition("/")[0] for item in listed}),
        ledger_objects=len(listed),
        ledger_bytes=sum(item.size_bytes for item in listed),
        is_complete=len(items) == len(listed),
        is_shared=shared,
    )
