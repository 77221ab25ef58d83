"""Lines of a source that need no look of their own are taken by the block: read in C, digested and written together.

A block with anything unusual in it is halved until only lines near the unusual one go the careful way.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import IO, Any

import msgspec

from opensearch_batch.core.formats.records import Entry, of_line
from opensearch_batch.core.sharding.line_form import LineForm
from opensearch_batch.core.storage.objects import Line, ends_in_cr, lf_lines, lines
from opensearch_batch.core.types.record_ids import RECORD_LINE

BLOCK_BYTES = 1 << 20
# A block of so few lines is not halved any more.
FEW_LINES = 32
_LF, _OPEN, _CLOSE = b"\n{}"


class Block(msgspec.Struct, frozen=True, gc=False):
    """Whole lines of a source, each a record: `line` is the number of the first, `count` how many they are.

    `inputs` are what the model reads of each, empty where a record is its own service-ready line.
    """

    content: bytes
    source: str
    line: int
    count: int
    form: LineForm
    inputs: Sequence[msgspec.Raw | bytes] = ()

    def first(self, count: int, size_bytes: int) -> Block:
        """Return its first records, at most so many, whose lines take at most so many bytes."""
        if self.inputs:
            sizes = list(accumulate(self.form.size_bytes(self.inputs)))
            return self._cut(max(0, min(count, bisect_right(sizes, size_bytes))))
        if count >= self.count and size_bytes >= len(self.content):
            return self
        fits = self._cut(max(0, min(count, self.count)))
        if len(fits.content) <= size_bytes:
            return fits
        end = self.content.rfind(b"\n", 0, max(0, size_bytes)) + 1
        return msgspec.structs.replace(self, content=self.content[:end], count=self.content.count(b"\n", 0, end))

    def after(self, first: Block) -> Block:
        """Return what is left after its first records."""
        return msgspec.structs.replace(
            self,
            content=self.content[len(first.content) :],
            line=self.line + first.count,
            count=self.count - first.count,
            inputs=self.inputs[first.count :],
        )

    def written(self, first: int) -> bytes:
        """Return the service-ready lines, the first of them for the record at a position."""
        return self.form.lines(first, self.inputs) if self.inputs else self.content

    def records(self, first: int) -> bytes:
        """Return the lines that keep the records beside the shard."""
        return b"".join([RECORD_LINE % pair for pair in enumerate(self.content.split(b"\n")[:-1], first)])

    def _cut(self, count: int) -> Block:
        if count >= self.count:
            return self
        end = len(self.content) - len(self.content.split(b"\n", count)[-1])
        return msgspec.structs.replace(self, content=self.content[:end], count=count, inputs=self.inputs[:count])


class Blocks:
    """Reads JSON Lines by the block.

    Args:
        form: how a record becomes a line.
        max_record_bytes: a longer record is unfit.
    """

    def __init__(self, form: LineForm, *, max_record_bytes: int) -> None:
        self._form = form
        self._inputs = form.reader()
        self._max_record_bytes = max_record_bytes

    def read(self, stream: IO[bytes], source: str) -> Iterator[Block | Entry]:
        """Yield the lines of a stream: in blocks where that is possible, else one by one."""
        if self._inputs is None or ends_in_cr(stream):
            yield from self._by_line(lines(stream, max_line_bytes=self._max_record_bytes), source)
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
            elif len(rest) > self._max_record_bytes:
                # The careful way knows how to pass by a line that is too long to be held.
                stream = io.BufferedReader(_Chained(rest, stream), BLOCK_BYTES)
                break
        else:
            stream = io.BytesIO(rest)
        tail = lf_lines(stream, max_line_bytes=self._max_record_bytes, number=line, offset=offset)
        yield from self._by_line(tail, source)

    def _block(self, content: bytes, source: str, line: int, offset: int, count: int) -> Iterator[Block | Entry]:
        if (inputs := self._read(content, count)) is not None:
            kept = () if self._form.pieces is None else inputs
            yield Block(content, source, line, count, self._form, kept)
        elif count <= FEW_LINES:
            of_block = lf_lines(io.BytesIO(content), max_line_bytes=self._max_record_bytes, number=line, offset=offset)
            yield from self._by_line(of_block, source)
        else:
            half = count // 2
            end = len(content) - len(content.split(b"\n", half)[-1])
            yield from self._block(content[:end], source, line, offset, half)
            yield from self._block(content[end:], source, line + half, offset + end, count - half)

    def _read(self, content: bytes, count: int) -> Sequence[msgspec.Raw | bytes] | None:
        """Return the inputs of the records, None unless each line is one that can go without a look of its own."""
        if self._inputs is None or not _is_an_object_a_line(content, self._max_record_bytes):
            return None
        inputs = self._inputs(content)
        return inputs if inputs is not None and len(inputs) == count else None

    def _by_line(self, found: Iterable[Line], source: str) -> Iterator[Entry]:
        for line in found:
            yield of_line(line, source, self._max_record_bytes)


def _is_an_object_a_line(content: bytes, longest: int) -> bool:
    """Say whether each line looks like an object and none is too long.

    Between two values of a line, or within one, no line can end so. The decoder takes values and no lines; with as many
    values as such lines there is one in each.
    """
    import numpy as np

    if content[:1] != b"{" or content[-2:] != b"}\n":
        return False
    characters = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(characters == _LF)
    if len(content) > longest and int(np.diff(ends, prepend=-1).max()) - 1 > longest:
        return False
    return bool((characters[ends - 1] == _CLOSE).all() and (characters[ends[:-1] + 1] == _OPEN).all())


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
