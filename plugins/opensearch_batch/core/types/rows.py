"""Rows of sources, and what becomes of them on their way to a document."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from opensearch_batch.core.types.object_info import ObjectInfo


class Row(msgspec.Struct, frozen=True, gc=False):
    """One line of a source, as it stood there.

    `source` is its position in the request, `line` counts from 1, `offset` is in bytes from the start of `uri`.
    """

    source: int
    uri: str
    line: int
    offset: int
    content: bytes


class Keyed(msgspec.Struct, frozen=True, gc=False):
    """A row, its key, and what the caller took out of the row: None when it lay on disk, so take it out again."""

    key: str
    row: Row
    values: Any = None


class Source(msgspec.Struct, frozen=True):
    """One source of a request: as it was named, and the objects that stand behind it, in reading order."""

    name: str
    objects: tuple[ObjectInfo, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes lie there, compressed or not."""
        return sum(found.size_bytes for found in self.objects)


class Blank(msgspec.Struct, frozen=True):
    """An empty line: no row, but counted."""

    source: int
    size_bytes: int = 1


class Rejected(msgspec.Struct, frozen=True):
    """Rows that cannot become a document, and why."""

    rows: tuple[Row, ...]
    reason: str
    id: str | None = None
    late: bool = False
    # The index's vectors are to blame: if that is so for all rows, the request is wrong and not the rows.
    vector: bool = False

    @property
    def size_bytes(self) -> int:
        """The bytes of the rows."""
        return sum(len(row.content) for row in self.rows)


# What the reader of a format yields.
SourceEntry = Row | Blank | Rejected


class RowLimit(msgspec.Struct, frozen=True):
    """The longest row that is read, and why a longer one is rejected."""

    max_bytes: int
    reason: str

    def check(self, row: Row) -> Row | Rejected:
        """Return the row, rejected if it is too long."""
        return row if len(row.content) <= self.max_bytes else self.rejected(row)

    def rejected(self, row: Row) -> Rejected:
        """Return a row that is too long."""
        return Rejected((row,), self.reason)


MAX_ROW_BYTES = 64 << 20
ROW_LIMIT = RowLimit(MAX_ROW_BYTES, f"the row is longer than {MAX_ROW_BYTES} bytes")


class Mapped(msgspec.Struct, frozen=True, gc=False):
    """What a document on its way was made of."""

    rows: tuple[Row, ...]
    nulls: int = 0
    late: bool = False


class AlreadyThere(msgspec.Struct, frozen=True):
    """A document the index holds already, equal to what would be sent."""

    mapped: Mapped
    size_bytes: int = 1


class Filtered(msgspec.Struct, frozen=True, gc=False):
    """Rows of one event that a pipeline's own rules keep out of an index, by their sources.

    `why` is the count they belong to.
    """

    sources: tuple[int, ...]
    why: Literal["unrouted", "dropped", "elsewhere"]
    size_bytes: int = 1
