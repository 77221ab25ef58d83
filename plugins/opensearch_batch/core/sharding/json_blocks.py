"""Reads JSON Lines in blocks of whole lines, so that many records can be decoded at once."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO

import msgspec

from opensearch_batch.core.formats.jsonl import entry_of
from opensearch_batch.core.storage.objects import Line, ends_in_cr, lf_lines, lines
from opensearch_batch.core.storage.raw_stream import RawStream
from opensearch_batch.core.types.rows import RowLimit, SourceEntry

BLOCK_BYTES = 1 << 20
_LF, _OPEN, _CLOSE = b"\n{}"


class LinesBlock(msgspec.Struct, frozen=True, gc=False):
    """Consecutive lines of an object with their line ends; the first has this number and offset."""

    content: bytes
    line: int
    offset: int
    count: int

    def halves(self) -> Iterator[LinesBlock]:
        """Yield both halves of a block of several lines."""
        half = self.count // 2
        end = len(self.content) - len(self.content.split(b"\n", half)[-1])
        yield LinesBlock(self.content[:end], self.line, self.offset, half)
        yield LinesBlock(self.content[end:], self.line + half, self.offset + end, self.count - half)

    def entries(self, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the lines one by one."""
        stream = io.BytesIO(self.content)
        single = lf_lines(stream, max_line_bytes=limit.max_bytes, number=self.line, offset=self.offset)
        return _entries(single, uri, limit)

    def records(self) -> list[bytes]:
        """Return the lines of a regular block."""
        return self.content.split(b"\n")[:-1]

    def is_regular(self, max_record_bytes: int) -> bool:
        """Return whether each line starts and ends like an object, and no line is too long.

        A decoder of lines ignores line ends. If it finds as many values as there are lines, each line holds one value.
        """
        import numpy as np

        content = self.content
        if content[:1] != b"{" or content[-2:] != b"}\n":
            return False
        characters = np.frombuffer(content, np.uint8)
        ends = np.flatnonzero(characters == _LF)
        if len(content) > max_record_bytes and int(np.diff(ends, prepend=-1).max()) - 1 > max_record_bytes:
            return False
        return bool((characters[ends - 1] == _CLOSE).all() and (characters[ends[:-1] + 1] == _OPEN).all())


def json_blocks(
    stream: IO[bytes], uri: str, limit: RowLimit, *, line: int = 1, offset: int = 0
) -> Iterator[LinesBlock | SourceEntry]:
    """Yield the lines of a stream, the first of which has this number and offset, in blocks if possible.

    Otherwise, yield them one by one.
    """
    if not offset and ends_in_cr(stream):
        yield from _entries(lines(stream, max_line_bytes=limit.max_bytes), uri, limit)
        return
    rest = b""
    while chunk := stream.read(BLOCK_BYTES):
        whole, end, rest = (rest + chunk).rpartition(b"\n")
        if end:
            content = whole + end
            count = content.count(b"\n")
            yield LinesBlock(content, line, offset, count)
            line += count
            offset += len(content)
        elif len(rest) > limit.max_bytes:
            # Reading by line can skip a line that is too long for memory.
            stream = io.BufferedReader(_Chained(rest, stream), BLOCK_BYTES)
            break
    else:
        stream = io.BytesIO(rest)
    tail = lf_lines(stream, max_line_bytes=limit.max_bytes, number=line, offset=offset)
    yield from _entries(tail, uri, limit)


def _entries(single: Iterable[Line], uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
    return (entry_of(line, 0, uri, limit) for line in single)


class _Chained(RawStream):
    """A stream, preceded by bytes that were already read from it."""

    def __init__(self, start: bytes, stream: IO[bytes]) -> None:
        self._start = start
        self._stream = stream

    def chunk(self, size: int) -> bytes:
        start, self._start = self._start, b""
        return start or self._stream.read(size)
