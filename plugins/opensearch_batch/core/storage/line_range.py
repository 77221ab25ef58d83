"""Reads the lines of an object that start in a byte range, so that several tasks can share a large object.

Each line belongs to the range that has its first byte, so ranges that cover an object have each of its lines once.
"""

from __future__ import annotations

import io
from typing import IO

from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Objects, skip_line
from opensearch_batch.core.storage.raw_stream import RawStream
from opensearch_batch.core.types.object_info import ObjectInfo


def open_lines(objects: Objects, item: ObjectInfo, start: int, end: int) -> tuple[IO[bytes], int]:
    r"""Open the lines, which end in ``\n``, that start at `start` or later, and before `end`; 0: to the object's end.

    Return the stream, and the offset of its first byte. An object with a `start` or an `end` is not compressed.

    Raises:
        ObjectChanged: the object changed since it was listed.
    """
    if not start and not end:
        return objects.open(item.uri, etag=item.etag), 0
    # The byte before the range shows whether a line starts with the range.
    stream = objects.open(item.uri, etag=item.etag, offset=max(start - 1, 0))
    first = start - 1 + skip_line(stream) if start else 0
    return io.BufferedReader(_LineRange(stream, first, end or item.size_bytes), READ_BUFFER_BYTES), first


class _LineRange(RawStream):
    """A stream that ends with the last line that starts before `end`; `position` is the offset of its first byte."""

    def __init__(self, stream: IO[bytes], position: int, end: int) -> None:
        self._stream = stream
        self._position = position
        self._end = end
        self._is_done = position >= end

    def chunk(self, size: int) -> bytes:
        content = b"" if self._is_done else self._stream.read(size)
        # The line that has the last byte of the range is the last one.
        newline = content.find(b"\n", max(self._end - 1 - self._position, 0))
        self._position += len(content)
        if newline < 0:
            return content
        self._is_done = True
        return content[: newline + 1]

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
