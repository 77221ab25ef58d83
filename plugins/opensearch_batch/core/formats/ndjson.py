"""NDJSON in any layout: one object on a line, several, one over several lines, or elements of an array.

A line that is exactly one object, or one broken value, is passed on without parsing; the code that decodes the row
later rejects it. Such lines are recognized by their ends, by one search for a second object, and by the start of the
next line: after a whole value JSON continues with ``,``, ``]`` or ``}`` only. All other lines are scanned. A broken
value loses only its first line. Source: Data Prepper's NdjsonInputCodec, which stops reading the object there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Literal

import msgspec

from opensearch_batch.core.formats.json_scanner import Scanner
from opensearch_batch.core.formats.json_text import on_one_line
from opensearch_batch.core.formats.writing import StreamedFile
from opensearch_batch.core.storage.objects import Line, ends_in_cr, lines, skip_line
from opensearch_batch.core.types.object_info import OutputCompression
from opensearch_batch.core.types.rows import Blank, Row, RowLimit, SourceEntry

_OPEN, _CLOSE, _SPACE = b"{} "
_ENDS = (b"}\n", b"}\r\n")
_SEVERAL = re.compile(rb"\}[ \t\r]*\{")
# The shortest text after the first object of a line with two, line end included: no search begins in it.
_SHORTEST = len(b"{}\n")
_SEARCHES = 8


class Ndjson(msgspec.Struct, frozen=True):
    """JSON objects in sequence or in arrays; objects without members are blank unless they are included."""

    include_empty_objects: bool = False

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the objects, each on one line."""
        scanner = Scanner(source, uri, limit, include_empty_objects=self.include_empty_objects)
        if ends_in_cr(stream):
            for line in lines(stream, max_line_bytes=limit.max_bytes):
                yield from scanner.take(line) if line.content.strip() else (Blank(source),)
        else:
            yield from _by_line(stream, source, uri, scanner, limit.max_bytes)
        yield from scanner.end()


class NdjsonEncoding(msgspec.Struct, frozen=True):
    """One event per line."""

    extension: Literal["ndjson", "jsonl"] = "ndjson"

    def open(self, file: IO[bytes], compression: OutputCompression) -> NdjsonFile:
        """Begin an object."""
        return NdjsonFile(file, compression)


class NdjsonFile(StreamedFile):
    """One event per line."""

    def add(self, event: bytes) -> None:
        """Add an event."""
        self._write(on_one_line(event) + b"\n")


def _by_line(stream: IO[bytes], source: int, uri: str, scanner: Scanner, max_bytes: int) -> Iterator[SourceEntry]:
    """Yield lines of one object each as they are; pass the others to the scanner.

    It reads the stream itself and inlines what it can: the largest sources are read here.
    """
    readline, busy, held, at, offset = stream.readline, False, None, 0, 0
    while raw := readline(max_bytes + len(b"\r\n")):
        at += 1
        # The quote means that the object is not empty.
        if raw.startswith(b'{"') and raw.endswith(_ENDS) and not busy:
            end = raw.find(b"}", 2, -_SHORTEST)
            if end < 0 or not _several(raw, end):
                if held is not None:
                    yield held
                held = Row(source, uri, at, offset, raw[:-1] if raw[-2] == _CLOSE else raw[:-2])
                offset += len(raw)
                continue
        line = _line(raw, at, offset, max_bytes)
        offset += len(raw)
        if line.cut and not raw.endswith(b"\n"):
            offset += skip_line(stream)
        if not line.content or line.content.isspace():
            yield Blank(source)
            continue
        if held is not None:
            yield from scanner.take(Line(held.line, held.content, offset=held.offset))
            held = None
        yield from scanner.take(line)
        busy = scanner.busy
    if held is not None:
        yield held


def _line(raw: bytes, at: int, offset: int, max_bytes: int) -> Line:
    content = raw[:-2] if raw.endswith(b"\r\n") else raw[:-1] if raw.endswith(b"\n") else raw
    return Line(at, content, len(content) > max_bytes, offset)


def _several(raw: bytes, at: int) -> bool:
    """Return whether a line may have a second root object; `at` is the position of its first closing bracket."""
    for _ in range(_SEARCHES):
        # White space may come before the start of an object.
        if raw[at + 1] == _OPEN or raw[at + 1] <= _SPACE:
            return True
        at = raw.find(b"}", at + 1, -_SHORTEST)
        if at < 0:
            return False
    return _SEVERAL.search(raw, at) is not None
