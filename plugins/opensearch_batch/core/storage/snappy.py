"""Reads and writes Snappy streams as Data Prepper does: blocks after a header, or one block without a header.

The layout is that of snappy-java (SnappyOutputStream, SnappyInputStream), not Google's framing format: a header of 16
bytes (magic bytes, version, lowest compatible version), then for each block the length of its compressed bytes and
these bytes. Numbers are big-endian. Concatenated streams repeat the header.
cramjam and python-snappy do not read this layout, so this module is hand-written; pyarrow compresses the blocks.
"""

from __future__ import annotations

import struct
from typing import IO

from opensearch_batch.core.storage.raw_stream import RawStream

MAGIC = b"\x82SNAPPY\x00"
HEADER = MAGIC + struct.pack(">ii", 1, 1)
# The default block size of snappy-java.
BLOCK_BYTES = 32 << 10
MAX_BLOCK_BYTES = 256 << 20
# Three bytes of a block decompress to at most 64 bytes.
_MAX_GROWTH = 64
_LENGTH = struct.Struct(">I")
_VARINT_BYTES, _VARINT_BITS = 5, 7
_MORE, _LOW_BITS = 0x80, 0x7F


class DamagedError(Exception):
    """The bytes are not complete Snappy data."""


class SnappyReader(RawStream):
    """The content of a Snappy stream, read block by block; damaged or truncated data raise DamagedError."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._started = False

    def chunk(self, size: int) -> bytes:  # noqa: ARG002 - a block is decompressed as a whole
        """Return the content of the next block that is not empty."""
        while (content := self._next()) == b"":
            pass
        return content or b""

    def _next(self) -> bytes | None:
        """Return the content of the next block, None at the end."""
        if not self._started:
            self._started = True
            start = self._stream.read(len(HEADER))
            if start[: len(MAGIC)] != MAGIC:
                # Data without a header are one block.
                block = start + self._stream.read(MAX_BLOCK_BYTES)
                if len(block) > MAX_BLOCK_BYTES:
                    raise DamagedError(f"no header, and too large for a single block ({MAX_BLOCK_BYTES} bytes)")
                return decompress(block)
            _check_header(start)
        head = self._stream.read(_LENGTH.size)
        while head == MAGIC[: _LENGTH.size]:
            _check_header(head + self._stream.read(len(HEADER) - _LENGTH.size))
            head = self._stream.read(_LENGTH.size)
        if not head:
            return None
        if len(head) < _LENGTH.size:
            raise DamagedError("the length of a block is incomplete")
        (length,) = _LENGTH.unpack(head)
        if length > MAX_BLOCK_BYTES:
            raise DamagedError(f"a block of {length} bytes is larger than the limit of {MAX_BLOCK_BYTES}")
        block = self._stream.read(length)
        if len(block) < length:
            raise DamagedError("a block is incomplete")
        return decompress(block)


class SnappyWriter:
    """Writes content as a Snappy stream; `close` writes the last block and leaves the underlying file open."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = bytearray()
        stream.write(HEADER)

    def write(self, content: bytes) -> None:
        """Write the complete blocks; keep the rest."""
        self._buffer += content
        whole = len(self._buffer) - len(self._buffer) % BLOCK_BYTES
        for at in range(0, whole, BLOCK_BYTES):
            self._block(self._buffer[at : at + BLOCK_BYTES])
        del self._buffer[:whole]

    def _block(self, content: bytearray) -> None:
        import pyarrow as pa

        block = bytes(pa.compress(bytes(content), codec="snappy", asbytes=True))
        self._stream.write(_LENGTH.pack(len(block)) + block)

    def close(self) -> None:
        """Write the last block."""
        if self._buffer:
            self._block(self._buffer)
            self._buffer.clear()


def decompress(block: bytes) -> bytes:
    """Decompress one block; raise DamagedError if it is not valid."""
    import pyarrow as pa

    size = _content_bytes(block)
    if size > len(block) * _MAX_GROWTH:
        raise DamagedError(f"a block of {len(block)} bytes claims {size} bytes of content")
    try:
        return bytes(pa.decompress(block, decompressed_size=size, codec="snappy", asbytes=True))
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(str(error)) from error


def _content_bytes(block: bytes) -> int:
    """Return the content size that a block declares: a varint of seven bits per byte, lowest bits first."""
    size = 0
    for at, byte in enumerate(block[:_VARINT_BYTES]):
        size |= (byte & _LOW_BITS) << (_VARINT_BITS * at)
        if not byte & _MORE:
            return size
    raise DamagedError("a block declares no content size")


def _check_header(header: bytes) -> None:
    if len(header) < len(HEADER) or not header.startswith(MAGIC):
        raise DamagedError("the header is incomplete or invalid")
    _, lowest = struct.unpack(">ii", header[len(MAGIC) :])
    if lowest > 1:
        raise DamagedError(f"needs a reader of version {lowest}; this is version 1")
