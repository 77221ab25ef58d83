"""Snappy as Data Prepper writes and reads it: blocks behind a header, or one block alone.

The layout is snappy-java's (SnappyOutputStream, SnappyInputStream): 16 bytes of header, which are the magic bytes, a
version and the lowest version that can read it; then for each block the length of its compressed bytes and these. All
numbers are big-endian. A header may come again where streams follow one another. It is not Google's framing format.
Hand-written: cramjam and python-snappy read Google's framing only. The blocks are pyarrow's.
"""

from __future__ import annotations

import io
import struct
from typing import IO

MAGIC = b"\x82SNAPPY\x00"
HEADER = MAGIC + struct.pack(">ii", 1, 1)
# What snappy-java puts into a block unless it is told otherwise.
BLOCK_BYTES = 32 << 10
MAX_BLOCK_BYTES = 256 << 20
# Three bytes of a block stand for at most 64 of its content.
_MAX_GROWTH = 64
_LENGTH = struct.Struct(">I")
_VARINT_BYTES, _VARINT_BITS = 5, 7
_MORE, _LOW_BITS = 0x80, 0x7F


class DamagedError(Exception):
    """The bytes are no whole Snappy data."""


class SnappyReader(io.RawIOBase):
    """The content of a Snappy stream, block by block; reading raises DamagedError where it is damaged or cut off."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._rest = memoryview(b"")
        self._started = False

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # what io.BufferedReader gives
        """Give out what is left of a block; unpack the next one where nothing is."""
        while not self._rest:
            block = self._next()
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _next(self) -> bytes | None:
        """Return the content of the next block, None at the end."""
        if not self._started:
            self._started = True
            start = self._packed.read(len(HEADER))
            if start[: len(MAGIC)] != MAGIC:
                return self._lone(start)
            _check_header(start)
        head = self._packed.read(_LENGTH.size)
        while head == MAGIC[: _LENGTH.size]:
            _check_header(head + self._packed.read(len(HEADER) - _LENGTH.size))
            head = self._packed.read(_LENGTH.size)
        if not head:
            return None
        if len(head) < _LENGTH.size:
            raise DamagedError("it ends inside the length of a block")
        (length,) = _LENGTH.unpack(head)
        if length > MAX_BLOCK_BYTES:
            raise DamagedError(f"a block of {length} bytes")
        block = self._packed.read(length)
        if len(block) < length:
            raise DamagedError("it ends inside a block")
        return unpacked(block)

    def _lone(self, start: bytes) -> bytes:
        """Return the content of data without a header: they are one block."""
        block = start + self._packed.read(MAX_BLOCK_BYTES)
        if len(block) > MAX_BLOCK_BYTES:
            raise DamagedError(f"no header, and too large for the one block that it then is ({MAX_BLOCK_BYTES} bytes)")
        return unpacked(block)


class SnappyWriter(io.RawIOBase):
    """Writes content as a Snappy stream; `close` writes the last block and leaves the file below open."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._waiting = bytearray()
        packed.write(HEADER)

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override] # what the writers here give
        """Take content; whole blocks are written at once."""
        self._waiting += content
        whole = len(self._waiting) - len(self._waiting) % BLOCK_BYTES
        for at in range(0, whole, BLOCK_BYTES):
            self._block(self._waiting[at : at + BLOCK_BYTES])
        del self._waiting[:whole]
        return len(content)

    def _block(self, content: bytearray) -> None:
        block = packed(bytes(content))
        self._packed.write(_LENGTH.pack(len(block)) + block)

    def close(self) -> None:
        """Write what is left."""
        if not self.closed and self._waiting:
            self._block(self._waiting)
            self._waiting.clear()
        super().close()


def packed(content: bytes) -> bytes:
    """Return content as one block."""
    import pyarrow as pa

    return bytes(pa.compress(content, codec="snappy", asbytes=True))


def unpacked(block: bytes) -> bytes:
    """Return the content of one block; raise DamagedError where it is none."""
    import pyarrow as pa

    size = _content_bytes(block)
    if size > len(block) * _MAX_GROWTH:
        raise DamagedError(f"a block of {len(block)} bytes says that it holds {size}")
    try:
        return bytes(pa.decompress(block, decompressed_size=size, codec="snappy", asbytes=True))
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(str(error)) from error


def _content_bytes(block: bytes) -> int:
    """Return how much content a block says that it holds: seven bits a byte, the lowest first."""
    size = 0
    for at, byte in enumerate(block[:_VARINT_BYTES]):
        size |= (byte & _LOW_BITS) << (_VARINT_BITS * at)
        if not byte & _MORE:
            return size
    raise DamagedError("a block does not say how much it holds")


def _check_header(header: bytes) -> None:
    if len(header) < len(HEADER) or not header.startswith(MAGIC):
        raise DamagedError("it ends inside the header, or has a wrong one")
    _, lowest = struct.unpack(">ii", header[len(MAGIC) :])
    if lowest > 1:
        raise DamagedError(f"written for readers of version {lowest}; this is one of version 1")
