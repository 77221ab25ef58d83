"""Writes rows of objects that did not change to fewer files, when they are spread over many small ones.

Each run writes the rows of the objects that changed to new files, so the files of earlier runs lose their rows. A run
that commits does this under its own claim, so no other run can commit at the same time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from opensearch_batch.core.ledger.head import Entry, Head, in_file_order
from opensearch_batch.core.ledger.rows import PACK_ROWS, RowsReader, RowsSlice, RowsWriter
from opensearch_batch.core.storage.objects import Objects

# More files than this with at most half as many needed rows as a full file are written again.
SMALL_FILES = 16

# Where the rows of each object were, and where they are now.
Moved = Mapping[str, tuple[RowsSlice, RowsSlice]]


def to_repack(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the objects whose rows are in small files, if there are more than `SMALL_FILES` of these."""
    needed = Counter[str]()
    for entry in entries.values():
        needed[entry.rows] += entry.count
    small = {file for file, rows in needed.items() if file and 2 * rows <= PACK_ROWS}
    if len(small) <= SMALL_FILES:
        return {}
    return {uri: entry for uri, entry in entries.items() if entry.rows in small}


def repack(objects: Objects, folder: str, entries: Mapping[str, Entry]) -> Moved:
    """Write the rows of objects to new files in a folder.

    Raises:
        FatalError: rows are missing or damaged.
    """
    reader, writer = RowsReader(objects), RowsWriter(objects, folder)
    for uri, entry in in_file_order(entries):
        for rows in reader.read(entry):
            writer.add(uri, rows)
    return {uri: (entries[uri], part) for uri, part in writer.close().items()}


def moved(head: Head, files: Moved) -> dict[str, Entry]:
    """Return the objects of a head whose rows were not moved meanwhile, with the new locations of their rows."""
    return {
        uri: msgspec.structs.replace(entry, rows=new.rows, first=new.first)
        for uri, (old, new) in files.items()
        if (entry := head.objects.get(uri)) is not None and (entry.rows, entry.first) == (old.rows, old.first)
    }
