"""JSON in any layout, recognized by the first bytes of each object: JSON Lines, an array, or objects over lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Literal

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.json import Json
from opensearch_batch.core.formats.json_text import check_json
from opensearch_batch.core.formats.jsonl import JsonLines
from opensearch_batch.core.formats.lines import RawLines
from opensearch_batch.core.formats.ndjson import Ndjson
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES
from opensearch_batch.core.types.rows import Rejected, Row, RowLimit, SourceEntry

Layout = Literal["lines", "array", "objects"]
_BOM = b"\xef\xbb\xbf"
_ARRAY, _OBJECT = b"[", b"{"


class AnyJson(msgspec.Struct, frozen=True):
    """JSON Lines, read by `lines`; or the elements of an array; or objects of which one may take several lines."""

    lines: JsonLines | RawLines

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the objects.

        Raises:
            ConfigError: an array is too large to be read whole.
            FatalError: an array is not one JSON document.
        """
        layout = layout_of(stream)
        if layout == "lines":
            yield from self.lines.read(stream, source, uri, limit)
        elif layout == "array":
            yield from Json(nested=False).read(stream, source, uri, limit)
        else:
            for entry in Ndjson(include_empty_objects=True).read(stream, source, uri, limit):
                yield _checked(entry) if isinstance(entry, Row) else entry


def layout_of(stream: IO[bytes]) -> Layout:
    """Return the layout of a stream without reading from it; lines if the start does not tell."""
    start = stream.peek(READ_BUFFER_BYTES) if hasattr(stream, "peek") else b""
    if start.startswith(_BOM):
        return "objects"
    first, newline, rest = start.lstrip().partition(b"\n")
    following, inside = rest.lstrip()[:1], (first[1:] + rest).lstrip()[:1]
    if first.startswith(_ARRAY):
        is_line = inside not in (b"", _OBJECT, b"]") or (following != b"" and _is_value(first))
        return "lines" if is_line else "array"
    # A value that takes several lines does not go on with the start of an object.
    is_open = first.startswith(_OBJECT) and newline != b"" and following not in (b"", _OBJECT)
    return "objects" if is_open and not _is_value(first) else "lines"


def _is_value(line: bytes) -> bool:
    try:
        check_json(line)
    except (RecordRejected, RecursionError):
        return False
    return True


def _checked(row: Row) -> Row | Rejected:
    try:
        check_json(row.content)
    except RecordRejected as error:
        return Rejected((row,), str(error))
    return row
