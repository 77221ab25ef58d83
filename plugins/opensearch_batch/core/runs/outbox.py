"""Outbox of index writes whose asset event has not been emitted yet.

The counts of one attempt do not show whether an event is due. If an attempt dies after its last document, the retry
finds all documents indexed. If a run fails after its ingest, the next run finds nothing to do. So `ingest` adds an
entry before it writes, and `publish` deletes it as its last step. Airflow emits the event when `publish` succeeds, so
an event may be emitted twice; it is lost if the worker dies between these two, and the retry has nothing else to emit.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from opensearch_batch.core.storage.json_document import JsonDocument, read_all
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest


class PendingEvent(msgspec.Struct, frozen=True):
    """An asset event that has not been emitted: the run that writes, and the index."""

    run_id: str
    index: str


def add_event(objects: Objects, layout: Layout, shard_id: str, event: PendingEvent) -> str | None:
    """Add an entry before a shard is written; return the entry's location, None if an earlier attempt added it."""
    uri = f"{layout.outbox()}{digest(event.run_id, shard_id, event.index)}.json"
    return uri if JsonDocument(objects, uri, PendingEvent).create(event) else None


def pending_events(objects: Objects, layout: Layout) -> Iterator[tuple[str, PendingEvent]]:
    """Yield all entries of a pipeline with their locations."""
    for document, event in read_all(objects, layout.outbox(), PendingEvent):
        yield document.uri, event
