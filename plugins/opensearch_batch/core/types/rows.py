"""Rows of sources, and the results of reading, joining and mapping them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from opensearch_batch.core.types.object_info import ObjectInfo


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of a source.

    `source` is the position of the source in the request. The row starts at `line` (from 1) and at `offset` (in bytes)
    of the object `uri`. `content` is the text of the row. If the row is composed when it is needed (`RowComposer`), the
    content is the user's record, and `answer` is its prediction, or the reason why there is none.
    """

    source: int
    uri: str
    line: int
    offset: int
    content: bytes
    answer: object = None


class KeyedRow(msgspec.Struct, frozen=True, gc=False):
    """A row with its join key; `values` are what the caller extracted from it, None if the row was spilled to disk."""

    key: str
    row: Row
    values: Any = None


class Source(msgspec.Struct, frozen=True):
    """One source of a request: its name in the request, and its objects in reading order."""

    name: str
    objects: tuple[ObjectInfo, ...]

    @property
    def size_bytes(self) -> int:
        """The total size of the stored objects, which may be compressed."""
        return sum(item.size_bytes for item in self.objects)


class Blank(msgspec.Struct, frozen=True):
    """An empty line, which is counted but is not a row."""

    source: int
    size_bytes: int = 1


class Rejected(msgspec.Struct, frozen=True):
    """Rows that cannot become a document, and the reason.

    `late` means that the rows were read after the document with their id was written.
    """

    rows: tuple[Row, ...]
    reason: str
    id: str | None = None
    late: bool = False
    # Whether a vector does not fit the index. If all rows are rejected for this reason, the request is wrong.
    vector: bool = False
    # Whether the next run tries again.
    waits: bool = False

    @property
    def size_bytes(self) -> int:
        """The total size of the rows."""
        return sum(len(row.content) for row in self.rows)


# The entries that the reader of a format yields.
SourceEntry = Row | Blank | Rejected


class RowLimit(msgspec.Struct, frozen=True):
    """The maximum size of a row, and the reason for the rejection of a longer row."""

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


class MappedRows(msgspec.Struct, frozen=True, gc=False):
    """The rows of one document, and the number of its null fields; `late` as in `Rejected`."""

    rows: tuple[Row, ...]
    nulls: int = 0
    late: bool = False


class Unchanged(msgspec.Struct, frozen=True):
    """A document that is not sent, because the index already contains an equal document."""

    mapped: MappedRows
    size_bytes: int = 1


class Waiting(msgspec.Struct, frozen=True):
    """A document that is not sent, because others changed it since it was read; the next run reads it again."""

    mapped: MappedRows
    size_bytes: int = 1


class Filtered(msgspec.Struct, frozen=True, gc=False):
    """Rows of one event that routes or processors exclude from an index.

    `sources` has the source of each row. `why` is the field of `IngestCounts` that counts the rows. `origin` is the
    object and the line of the first row.
    """

    sources: tuple[int, ...]
    why: Literal["unrouted", "dropped", "elsewhere"]
    size_bytes: int = 1
    origin: tuple[str, int] = ("", 0)
