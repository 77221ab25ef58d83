"""Marks records of documents that lack predictions, so that a run in place writes these again.

A client that replaces a whole document, or deletes and creates it, removes its predictions, though the model reads the
same text. A marked record has the hash of the record without its mark.
"""

from __future__ import annotations

from opensearch_batch.core.sharding.listing import INDEX_SCHEME

# Only the documents of an index are marked; records of objects may begin likewise.
_SCHEME = f"{INDEX_SCHEME}://"
MARK = b'"_incomplete":true,'
_START = b"{" + MARK


def is_incomplete(uri: str, record: bytes) -> bool:
    """Return whether the record of an object is marked."""
    return record.startswith(_START) and uri.startswith(_SCHEME)


def without_mark(uri: str, record: bytes) -> bytes:
    """Return the record of an object without its mark, if it has one."""
    return b"{" + record[len(_START) :] if is_incomplete(uri, record) else record
