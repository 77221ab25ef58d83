"""Reads JSON Lines, a JSON array, or JSON objects that span several lines. The first bytes show the layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Literal

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.json import PlainJson
from opensearch_batch.core.formats.json_text import check_json
from opensearch_batch.core.formats.jsonl import JsonLines, RawLines
from opensearch_batch.core.formats.ndjson import Ndjson
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES
from opensearch_batch.core.types.rows import Rejected, Row, RowLimit, SourceEntry

Layout = Literal["lines", "array", "objects"]
_BOM = b"\xef\xbb\xbf"
_ARRAY, _OBJECT = b"[", b"{"


class AnyJson(msgspec.Struct, frozen=True):
    """Reads JSON Lines with `lines`, the elements of an array, or objects that may span several lines."""

    lines: JsonLines | RawLines

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the objects; raise ConfigError for an array that is too large, FatalError for one that is not JSON."""
        layout = layout_of(stream)
        if layout == "lines":
            yield from self.lines.read(stream, source, uri, limit)
        elif layout == "array":
            yield from PlainJson().read(stream, source, uri, limit)
        else:
            for entry in Ndjson(include_empty_objects=True).read(stream, source, uri, limit):
                yield _checked(entry) if isinstance(entry, Row) else entry


def layout_of(stream: IO[bytes]) -> Layout:
    """Return the layout of a stream without consuming bytes; ``lines`` if the first bytes do not show the layout."""
    start = stream.peek(READ_BUFFER_BYTES) if hasattr(stream, "peek") else b""
    if start.startswith(_BOM):
        return "objects"
    line, newline, rest = start.lstrip().partition(b"\n")
    next_line_start, first_element_start = rest.lstrip()[:1], (line[1:] + rest).lstrip()[:1]
    if line.startswith(_ARRAY):
        is_row = first_element_start not in (b"", _OBJECT, b"]") or (next_line_start != b"" and _is_value(line))
        return "lines" if is_row else "array"
    # If an object spans several lines, its second line does not start with another object.
    may_continue = line.startswith(_OBJECT) and newline != b"" and next_line_start not in (b"", _OBJECT)
    return "objects" if may_continue and not _is_value(line) else "lines"


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
