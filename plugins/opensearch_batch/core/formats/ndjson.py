"""Objects of ndjson, wherever their line ends stand: one on a line, several, one over lines, or elements of an array.

A line that holds exactly one object, or is broken by itself, goes on unread: whoever opens the row rejects it. Which
lines those are is told by their ends, by one search for a second object, and by the start of the next line: after a
whole value JSON goes on with ``,``, ``]`` or ``}`` only. All others are scanned. What does not fit together costs its
first line alone; the next one is looked at afresh. Source: Data Prepper's NdjsonInputCodec, which gives up the object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from opensearch_batch.core.formats.json_scanner import Entry, Scanner
from opensearch_batch.core.storage.objects import Line, ends_in_cr, lines, skip_line
from opensearch_batch.core.types.rows import MAX_ROW_BYTES, Blank, Row

_OPEN, _CLOSE, _SPACE = b"{} "
_ENDS = (b"}\n", b"}\r\n")
_SEVERAL = re.compile(rb"\}[ \t\r]*\{")
# The least that stands behind an object that another one follows, its line end included: so much needs no search.
_SHORTEST = len(b"{}\n")
_SEARCHES = 8


def read_ndjson(stream: IO[bytes], number: int, uri: str, *, include_empty_objects: bool) -> Iterator[Entry]:
    """Yield the objects of a stream; an empty one is a Blank unless it is asked for."""
    scanner = Scanner(number, uri, include_empty_objects=include_empty_objects)
    if ends_in_cr(stream):
        for line in lines(stream, max_line_bytes=MAX_ROW_BYTES):
            yield from scanner.take(line) if line.content.strip() else (Blank(number),)
    else:
        yield from _by_line(stream, number, uri, scanner)
    yield from scanner.end()


def _by_line(stream: IO[bytes], number: int, uri: str, scanner: Scanner) -> Iterator[Entry]:
    """Yield lines of one object each as they are; pass the others to the scanner.

    It reads the stream itself: what stands here is done for each row of the largest sources.
    """
    readline, busy, held, at, offset = stream.readline, False, None, 0, 0
    while raw := readline(MAX_ROW_BYTES + len(b"\r\n")):
        at += 1
        # The quote says that the object is not empty.
        if raw.startswith(b'{"') and raw.endswith(_ENDS) and not busy:
            end = raw.find(b"}", 2, -_SHORTEST)
            if end < 0 or not _several(raw, end):
                if held is not None:
                    yield held
                held = Row(number, uri, at, offset, raw[:-1] if raw[-2] == _CLOSE else raw[:-2])
                offset += len(raw)
                continue
        line = _line(raw, at, offset)
        offset += len(raw)
        if line.cut and not raw.endswith(b"\n"):
            offset += skip_line(stream)
        if not line.content or line.content.isspace():
            yield Blank(number)
            continue
        if held is not None:
            yield from scanner.take(Line(held.line, held.content, offset=held.offset))
            held = None
        yield from scanner.take(line)
        busy = scanner.busy
    if held is not None:
        yield held


def _line(raw: bytes, at: int, offset: int) -> Line:
    content = raw[:-2] if raw.endswith(b"\r\n") else raw[:-1] if raw.endswith(b"\n") else raw
    return Line(at, content, len(content) > MAX_ROW_BYTES, offset)


def _several(raw: bytes, at: int) -> bool:
    """Say whether a line may hold a second object at its root; at `at` is its first closing bracket."""
    for _ in range(_SEARCHES):
        # Space may hide the start of an object.
        if raw[at + 1] == _OPEN or raw[at + 1] <= _SPACE:
            return True
        at = raw.find(b"}", at + 1, -_SHORTEST)
        if at < 0:
            return False
    return _SEVERAL.search(raw, at) is not None
