"""Reads JSON Lines in blocks: regular lines, which hold one complete record each, are processed together.

A block with an irregular line is halved, so that only a few lines around the irregular one are read one by one.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import IO

import msgspec

from opensearch_batch.core.formats.jsonl import entry_of
from opensearch_batch.core.sharding.line_form import LineForm
from opensearch_batch.core.storage.objects import Line, ends_in_cr, lf_lines, lines
from opensearch_batch.core.storage.raw_stream import RawStream
from opensearch_batch.core.types.record_ids import RECORD_LINE
from opensearch_batch.core.types.rows import RowLimit, SourceEntry

BLOCK_BYTES = 1 << 20
# A block of at most this many lines is not halved.
MIN_LINES = 32
_LF, _OPEN, _CLOSE = b"\n{}"


class Block(msgspec.Struct, frozen=True, gc=False):
    """Consecutive lines of a source, one record each: `line` is the number of the first line, `count` their number.

    `inputs` has the model's inputs of each record; it is empty if the record itself is the service-ready line.
    """

    content: bytes
    source: str
    line: int
    count: int
    form: LineForm
    inputs: Sequence[msgspec.Raw | bytes] = ()

    def first(self, count: int, size_bytes: int) -> Block:
        """Return the first records of the block: at most `count`, with service-ready lines of at most `size_bytes`."""
        if self.inputs:
            sizes = list(accumulate(self.form.size_bytes(self.inputs)))
            return self._first_records(max(0, min(count, bisect_right(sizes, size_bytes))))
        if count >= self.count and size_bytes >= len(self.content):
            return self
        fits = self._first_records(max(0, min(count, self.count)))
        if len(fits.content) <= size_bytes:
            return fits
        end = self.content.rfind(b"\n", 0, max(0, size_bytes)) + 1
        return msgspec.structs.replace(self, content=self.content[:end], count=self.content.count(b"\n", 0, end))

    def after(self, first: Block) -> Block:
        """Return the rest of the block after its first records."""
        return msgspec.structs.replace(
            self,
            content=self.content[len(first.content) :],
            line=self.line + first.count,
            count=self.count - first.count,
            inputs=self.inputs[first.count :],
        )

    def service_lines(self, first: int) -> bytes:
        """Return the service-ready lines; the first record has the position `first`."""
        return self.form.lines(first, self.inputs) if self.inputs else self.content

    def records(self, first: int) -> bytes:
        """Return the lines that store the records beside the shard."""
        return b"".join([RECORD_LINE % pair for pair in enumerate(self.content.split(b"\n")[:-1], first)])

    def _first_records(self, count: int) -> Block:
        if count >= self.count:
            return self
        end = len(self.content) - len(self.content.split(b"\n", count)[-1])
        return msgspec.structs.replace(self, content=self.content[:end], count=count, inputs=self.inputs[:count])


class Blocks:
    """Reads JSON Lines in blocks.

    Args:
        form: the form of the service-ready lines.
        limit: the maximum size of a record.
    """

    def __init__(self, form: LineForm, limit: RowLimit) -> None:
        self._form = form
        self._read_inputs = form.reader()
        self._limit = limit

    def read(self, stream: IO[bytes], source: str) -> Iterator[Block | SourceEntry]:
        """Yield the lines of a stream, in blocks if possible, else one by one."""
        if self._read_inputs is None or ends_in_cr(stream):
            yield from self._by_line(lines(stream, max_line_bytes=self._limit.max_bytes), source)
            return
        line, offset, rest = 1, 0, b""
        while chunk := stream.read(BLOCK_BYTES):
            whole, end, rest = (rest + chunk).rpartition(b"\n")
            if end:
                content = whole + end
                count = content.count(b"\n")
                yield from self._block(content, source, line, offset, count)
                line += count
                offset += len(content)
            elif len(rest) > self._limit.max_bytes:
                # Reading by line can skip a line that is too long for memory.
                stream = io.BufferedReader(_Chained(rest, stream), BLOCK_BYTES)
                break
        else:
            stream = io.BytesIO(rest)
        tail = lf_lines(stream, max_line_bytes=self._limit.max_bytes, number=line, offset=offset)
        yield from self._by_line(tail, source)

    def _block(self, content: bytes, source: str, line: int, offset: int, count: int) -> Iterator[Block | SourceEntry]:
        if (inputs := self._inputs_of(content, count)) is not None:
            needed = () if self._form.pieces is None else inputs
            yield Block(content, source, line, count, self._form, needed)
        elif count <= MIN_LINES:
            single = lf_lines(io.BytesIO(content), max_line_bytes=self._limit.max_bytes, number=line, offset=offset)
            yield from self._by_line(single, source)
        else:
            half = count // 2
            end = len(content) - len(content.split(b"\n", half)[-1])
            yield from self._block(content[:end], source, line, offset, half)
            yield from self._block(content[end:], source, line + half, offset + end, count - half)

    def _inputs_of(self, content: bytes, count: int) -> Sequence[msgspec.Raw | bytes] | None:
        """Return the inputs of the records, or None if a line is irregular."""
        if self._read_inputs is None or not _lines_look_like_objects(content, self._limit.max_bytes):
            return None
        inputs = self._read_inputs(content)
        return inputs if inputs is not None and len(inputs) == count else None

    def _by_line(self, source_lines: Iterable[Line], source: str) -> Iterator[SourceEntry]:
        for line in source_lines:
            yield entry_of(line, 0, source, self._limit)


def _lines_look_like_objects(content: bytes, max_record_bytes: int) -> bool:
    """Return whether each line starts and ends like an object, and no line is too long.

    The decoder ignores line ends. If it then finds as many values as there are lines, each line holds one value.
    """
    import numpy as np

    if content[:1] != b"{" or content[-2:] != b"}\n":
        return False
    characters = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(characters == _LF)
    if len(content) > max_record_bytes and int(np.diff(ends, prepend=-1).max()) - 1 > max_record_bytes:
        return False
    return bool((characters[ends - 1] == _CLOSE).all() and (characters[ends[:-1] + 1] == _OPEN).all())


class _Chained(RawStream):
    """A stream, preceded by bytes that were already read from it."""

    def __init__(self, start: bytes, stream: IO[bytes]) -> None:
        self._start = start
        self._stream = stream

    def chunk(self, size: int) -> bytes:
        start, self._start = self._start, b""
        return start or self._stream.read(size)
