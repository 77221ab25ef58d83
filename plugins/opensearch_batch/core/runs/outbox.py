"""Notes of what was written to an index, and of which nobody who follows the index was told yet.

A count of what one attempt wrote is not enough: an attempt that dies after its last document is followed by one that
finds all of them there, and a run that fails after its ingest by one that finds the work done. So ingest leaves a note
before it writes, and the stage that tells the news takes it away. What may have been told is told again, never lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from opensearch_batch.core.storage.json_document import JsonDocument, read_all
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest


class Note(msgspec.Struct, frozen=True):
    """Which run writes to which index."""

    run_id: str
    index: str


def note_writing(objects: Objects, layout: Layout, shard_id: str, note: Note) -> str | None:
    """Note that a shard is about to be written; return where, None where an earlier attempt of the run noted it."""
    uri = f"{_folder(layout)}{digest(note.run_id, shard_id, note.index)}.json"
    return uri if JsonDocument(objects, uri, Note).create(note) else None


def unpublished(objects: Objects, layout: Layout) -> Iterator[tuple[str, Note]]:
    """Yield all notes of a pipeline, and where they lie."""
    for document, note in read_all(objects, _folder(layout), Note):
        yield document.uri, note


def _folder(layout: Layout) -> str:
    return f"{layout.root}/{layout.pipeline}/unpublished/"
