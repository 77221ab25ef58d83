"""Notes of what was written to an index, and of which nobody who follows the index was told yet.

A count of what one attempt wrote is not enough: an attempt that dies after its last document is followed by one that
finds all of them there, and a run that fails after its ingest by one that finds the work done. So ingest leaves a note
before it writes, and the stage that tells the news takes it away. What may have been told is told again, never lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest


class Note(msgspec.Struct, frozen=True):
    """Which run writes to which index."""

    run_id: str
    index: str


def note_writing(objects: Objects, work: Layout, shard_id: str, note: Note) -> str | None:
    """Note that a shard is about to be written; return where, None where an earlier attempt of the run noted it."""
    uri = f"{_folder(work)}{digest(note.run_id, shard_id, note.index)}.json"
    return uri if objects.create(uri, msgspec.json.encode(note)) else None


def unpublished(objects: Objects, work: Layout) -> Iterator[tuple[str, Note]]:
    """Yield all notes of a pipeline, and where they lie."""
    for item in list(objects.list(_folder(work))):
        stored = objects.read(item.uri)
        if stored is not None:
            yield item.uri, msgspec.json.decode(stored.content, type=Note)


def _folder(work: Layout) -> str:
    return f"{work.root}/{work.pipeline}/unpublished/"
