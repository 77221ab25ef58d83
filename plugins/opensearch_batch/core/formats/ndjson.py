"""Reads and writes NDJSON. Several objects on a line, objects on several lines, and arrays of objects are accepted.

A line that looks like exactly one object becomes a row without being parsed; if it is not valid JSON, the code that
later decodes the row rejects it. The reader recognizes such a line by its first and last characters, by a search for a
second object, and by the start of the next line, because JSON continues after a complete value only with ``,``, ``]``
or ``}``. All other lines are scanned. If a value is invalid, its first line and the more indented lines after it are
rejected.
Source: Data Prepper's NdjsonInputCodec, which stops reading the S3 object at an invalid value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import IO, ClassVar, Literal

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.formats.json_scanner import Scanner
from opensearch_batch.core.formats.json_text import on_one_line
from opensearch_batch.core.formats.writing import StreamedFile
from opensearch_batch.core.storage.objects import Line, ends_in_cr, lines, skip_line
from opensearch_batch.core.types.object_info import OutputCompression
from opensearch_batch.core.types.rows import Blank, Row, RowLimit, SourceEntry

_OPEN, _CLOSE, _SPACE = b"{} "
_ENDS = (b"}\n", b"}\r\n")
_SECOND_OBJECT = re.compile(rb"\}[ \t\r]*\{")
# The minimum length of a second object on a line, with the line end. A search for the end of the first object can
# therefore stop this many bytes before the end of the line.
_MIN_OBJECT_BYTES = len(b"{}\n")
_MAX_SEARCHES = 8


class Ndjson(Options, frozen=True, kw_only=True):
    """Reads JSON objects in sequence or in arrays. Without `include_empty_objects`, empty ones count as blank lines."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {"extension": "objects are read by the codec, whatever their extension"}

    include_empty_objects: bool = False

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the objects, each on one line, and the blank and rejected lines."""
        scanner = Scanner(source, uri, limit, include_empty_objects=self.include_empty_objects)
        if ends_in_cr(stream):
            for line in lines(stream, max_line_bytes=limit.max_bytes):
                yield from scanner.scan(line) if line.content.strip() else (Blank(source),)
        else:
            yield from _by_line(stream, source, uri, scanner, limit.max_bytes)
        yield from scanner.end()


class NdjsonEncoding(Options, frozen=True, kw_only=True):
    """Writes one event per line."""

    extension: Literal["ndjson", "jsonl"] = "ndjson"

    def open(self, file: IO[bytes], compression: OutputCompression) -> NdjsonFile:
        return NdjsonFile(file, compression)


class NdjsonFile(StreamedFile):
    """Writes the events of one object, one per line."""

    def add(self, event: bytes) -> None:
        self._write(on_one_line(event) + b"\n")


def _by_line(stream: IO[bytes], source: int, uri: str, scanner: Scanner, max_bytes: int) -> Iterator[SourceEntry]:
    """Yield a line that is one object as a row, and pass every other line to the scanner.

    `pending` is the row of the previous line, until the start of this line shows that the object does not continue. The
    largest sources are read here, so this function reads the stream itself and inlines function calls.
    """
    readline, in_value, pending, number, offset = stream.readline, False, None, 0, 0
    while raw := readline(max_bytes + len(b"\r\n")):
        number += 1
        # The quote shows that the object is not empty.
        if raw.startswith(b'{"') and raw.endswith(_ENDS) and not in_value:
            end = raw.find(b"}", 2, -_MIN_OBJECT_BYTES)
            if end < 0 or not _may_have_second_object(raw, end):
                if pending is not None:
                    yield pending
                pending = Row(source, uri, number, offset, raw[:-1] if raw[-2] == _CLOSE else raw[:-2])
                offset += len(raw)
                continue
        line = _line(raw, number, offset, max_bytes)
        offset += len(raw)
        if line.cut and not raw.endswith(b"\n"):
            offset += skip_line(stream)
        if not line.content or line.content.isspace():
            yield Blank(source)
            continue
        if pending is not None:
            yield from scanner.scan(Line(pending.line, pending.content, offset=pending.offset))
            pending = None
        yield from scanner.scan(line)
        in_value = scanner.is_in_value
    if pending is not None:
        yield pending


def _line(raw: bytes, number: int, offset: int, max_bytes: int) -> Line:
    content = raw[:-2] if raw.endswith(b"\r\n") else raw[:-1] if raw.endswith(b"\n") else raw
    return Line(number, content, len(content) > max_bytes, offset)


def _may_have_second_object(raw: bytes, position: int) -> bool:
    """Return whether a line may contain a second root object; `position` is that of its first closing bracket."""
    for _ in range(_MAX_SEARCHES):
        # White space may precede a second object.
        if raw[position + 1] == _OPEN or raw[position + 1] <= _SPACE:
            return True
        position = raw.find(b"}", position + 1, -_MIN_OBJECT_BYTES)
        if position < 0:
            return False
    return _SECOND_OBJECT.search(raw, position) is not None
