"""Reads objects by a format, as the stages do."""

from __future__ import annotations

import json
from typing import Any

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.reading import RowFormat, reader
from opensearch_batch.core.transform.events.event import Event
from opensearch_batch.core.types.object_info import Compression
from opensearch_batch.core.types.rows import ROW_LIMIT, Blank, Rejected, RowLimit, Source, SourceEntry
from tests.core.memory_objects import MemoryObjects
from tests.stored import present

Told = tuple[int, Any]
BAD = "bad"


def entries(
    content: bytes,
    row_format: RowFormat,
    compression: Compression | None = None,
    *,
    limit: RowLimit = ROW_LIMIT,
    name: str = "a",
) -> list[SourceEntry]:
    """Read an object."""
    store = MemoryObjects()
    store.write(name, content)
    return list(reader(row_format, compression, limit)(store, 3, Source(name, (present(store.head(name)),))))


def told(read: list[SourceEntry]) -> list[Told | None]:
    """Return rows as values with their lines; as the reader of events has them, bad ones are `BAD`."""
    return [_told(entry) for entry in read]


def reasons(read: list[SourceEntry]) -> list[tuple[int, str]]:
    """Return the lines of rejected rows, and why they are rejected."""
    return [(entry.rows[0].line, entry.reason) for entry in read if isinstance(entry, Rejected)]


def _told(entry: SourceEntry) -> Told | None:
    if isinstance(entry, Blank):
        assert entry.source == 3
        return None
    row = entry.rows[0] if isinstance(entry, Rejected) else entry
    assert row.source == 3
    if isinstance(entry, Rejected):
        assert entry.reason
        return row.line, BAD
    assert b"\n" not in row.content
    try:
        Event.of(row.content)
        return row.line, json.loads(row.content)
    except RecordRejected:
        return row.line, BAD
