"""Rows of sources, and the values that they become on the way to a document."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from opensearch_batch.core.types.object_info import ObjectInfo


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of a source.

    `source` is the position of the source in the request. `line` (from 1) and `offset` (in bytes) are where the row
    starts in the object `uri`. `content` is its text.
    """

    source: int
    uri: str
    line: int
    offset: int
    content: bytes


class Keyed(msgspec.Struct, frozen=True, gc=False):
    """A row with its join key, and the values that the caller extracted; None if the row was spilled to disk."""

    key: str
    row: Row
    values: Any = None


class Source(msgspec.Struct, frozen=True):
    """One source of a request: its name there, and its objects in reading order."""

    name: str
    objects: tuple[ObjectInfo, ...]

    @property
    def size_bytes(self) -> int:
        """The total size of the objects as they are stored."""
        return sum(item.size_bytes for item in self.objects)


class Blank(msgspec.Struct, frozen=True):
    """An empty line; it is counted, but is not a row."""

    source: int
    size_bytes: int = 1


class Rejected(msgspec.Struct, frozen=True):
    """Rows that cannot become a document, and the reason."""

    rows: tuple[Row, ...]
    reason: str
    id: str | None = None
    late: bool = False
    # The vector does not fit the index. If that holds for all rows, the request is wrong, not the rows.
    vector: bool = False

    @property
    def size_bytes(self) -> int:
        """The bytes of the rows."""
        return sum(len(row.content) for row in self.rows)


# What the reader of a format yields.
SourceEntry = Row | Blank | Rejected


class RowLimit(msgspec.Struct, frozen=True):
    """The maximum size of a row, and the reason why a longer one is rejected."""

    max_bytes: int
    reason: str

    def check(self, row: Row) -> Row | Rejected:
        """Return the row, or its rejection if it is too long."""
        return row if len(row.content) <= self.max_bytes else self.rejected(row)

    def rejected(self, row: Row) -> Rejected:
        """Return the rejection of a row that is too long."""
        return Rejected((row,), self.reason)


MAX_ROW_BYTES = 64 << 20
ROW_LIMIT = RowLimit(MAX_ROW_BYTES, f"the row is longer than {MAX_ROW_BYTES} bytes")


class Mapped(msgspec.Struct, frozen=True, gc=False):
    """The rows that a document was made of, and how many of its fields are null."""

    rows: tuple[Row, ...]
    nulls: int = 0
    late: bool = False


class AlreadyThere(msgspec.Struct, frozen=True):
    """A document that is not sent, because the index already has an equal one."""

    mapped: Mapped
    size_bytes: int = 1


class Filtered(msgspec.Struct, frozen=True, gc=False):
    """Rows of one event that a pipeline's rules keep out of an index; `why` is the count that they belong to."""

    sources: tuple[int, ...]
    why: Literal["unrouted", "dropped", "elsewhere"]
    size_bytes: int = 1
