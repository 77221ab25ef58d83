"""Lines that need nothing done to them are moved by the block: looked at in C, digested, and written, many at a time.

A block with anything unusual in it is taken apart into lines, and those go the careful way.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import msgspec

from opensearch_batch.core.objects import Line, ends_in_cr, lf_lines, lines
from opensearch_batch.core.records import Entry, of_line

BLOCK_BYTES = 1 << 20


class Block(msgspec.Struct, frozen=True, gc=False):
    """Whole lines of a source, each a record and its own service-ready line; `line` is the number of the first."""

    content: bytes
    source: str
    line: int
    count: int

    def first(self, count: int, size_bytes: int) -> Block:
        """Return the first lines of it, at most so many and so many bytes."""
        if count >= self.count and size_bytes >= len(self.content):
            return self
        count, end = max(0, min(count, self.count)), len(self.content)
        if count < self.count:
            end -= len(self.content.split(b"\n", count)[-1])
        if end > size_bytes:
            end = self.content.rfind(b"\n", 0, max(0, size_bytes)) + 1
            count = self.content.count(b"\n", 0, end)
        return Block(self.content[:end], self.source, self.line, count)

    def after(self, first: Block) -> Block:
        """Return what is left after its first lines."""
        rest = self.content[len(first.content) :]
        return Block(rest, self.source, self.line + first.count, self.count - first.count)


def blocks(
    stream: IO[bytes], source: str, *, passes: Callable[[bytes], int | None], max_record_bytes: int
) -> Iterator[Block | Entry]:
    """Yield the lines of a stream: in blocks where they can go as they are, else one by one.

    Args:
        stream: JSON Lines.
        source: its URI.
        passes: says how many records a block of whole lines holds, None where one needs a look of its own.
        max_record_bytes: a longer record is unfit.
    """
    if ends_in_cr(stream):
        yield from _by_line(lines(stream, max_line_bytes=max_record_bytes), source, max_record_bytes)
        return
    line, offset, rest = 1, 0, b""
    while chunk := stream.read(BLOCK_BYTES):
        whole, end, rest = (rest + chunk).rpartition(b"\n")
        if end:
            content = whole + end
            count = content.count(b"\n")
            if _is_an_object_a_line(content, count) and passes(content) == count:
                yield Block(content, source, line, count)
            else:
                of_block = lf_lines(io.BytesIO(content), max_line_bytes=max_record_bytes, number=line, offset=offset)
                yield from _by_line(of_block, source, max_record_bytes)
            line += count
            offset += len(content)
        elif len(rest) > max_record_bytes:
            # The careful way knows how to pass by a line that is too long to be held.
            stream = io.BufferedReader(_Chained(rest, stream), BLOCK_BYTES)
            break
    else:
        stream = io.BytesIO(rest)
    tail = lf_lines(stream, max_line_bytes=max_record_bytes, number=line, offset=offset)
    yield from _by_line(tail, source, max_record_bytes)


def _is_an_object_a_line(content: bytes, count: int) -> bool:
    """Say whether each line looks like an object: between two values of a line, or within one, no line can end so."""
    return content[:1] == b"{" and content[-2:] == b"}\n" and content.count(b"}\n{") == count - 1


def _by_line(found: Iterable[Line], source: str, max_record_bytes: int) -> Iterator[Entry]:
    for line in found:
        yield of_line(line, source, max_record_bytes)


class _Chained(io.RawIOBase):
    """What was read already, and then the rest of a stream."""

    def __init__(self, start: bytes, stream: IO[bytes]) -> None:
        self._start = start
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no name before Python 3.12
        size = len(buffer)
        chunk, self._start = self._start[:size], self._start[size:]
        chunk = chunk or self._stream.read(size)
        buffer[: len(chunk)] = chunk
        return len(chunk)
