"""Spills rows that do not fit in memory to disk, as the bytes that were read; about 20 bytes per key stay in memory.

The file has no name: the system removes it when it is closed, even if the process is killed. SQLite would need a sixth
more processor time for the same join (docs/decisions/006).
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.types.rows import KeyedRow, Row

OFFSET_BYTES = 5
WRITE_BYTES = 1 << 20
WALK_BYTES = 1 << 20
_DIGEST_BYTES, _BUCKET_BYTES = 13, 2
_REST_BYTES = _DIGEST_BYTES - _BUCKET_BYTES
_ENTRY_BYTES = _REST_BYTES + OFFSET_BYTES
_SEEN_BYTES = 8
_CLAIMED = b"\xff" * OFFSET_BYTES
_HEAD = struct.Struct("<IIIQQQ")  # source, number of the URI, bytes of the key, line, offset, bytes of the content


def digest(key: str) -> bytes:
    """Return a 104-bit digest of the key; in practice, no two keys share one."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


class KeyTable:
    """The keys of spilled rows with the rows' offsets, and the keys that were claimed: 21 to 29 bytes per key.

    The first two bytes of a digest select a bucket, which contains the other bytes: one lookup searches a few hundred
    bytes.
    """

    def __init__(self) -> None:
        self._buckets: list[bytearray | None] = [None] * (1 << 8 * _BUCKET_BYTES)

    def is_claimed(self, key: bytes) -> bool:
        """Return whether a key (its digest) was claimed."""
        bucket = self._buckets[key[0] << 8 | key[1]]
        if bucket is None:
            return False
        entry = _find(bucket, key[_BUCKET_BYTES:])
        return entry >= 0 and bucket[entry + _REST_BYTES : entry + _ENTRY_BYTES] == _CLAIMED

    def add(self, key: bytes, offset: int) -> None:
        """Add the offset of a row whose key (its digest) was not claimed."""
        _bucket(self._buckets, key).extend(key[_BUCKET_BYTES:] + offset.to_bytes(OFFSET_BYTES, "big"))

    def claim(self, key: bytes) -> list[int] | None:
        """Claim a key (its digest); return its offsets in the order they were added, None if it was claimed before."""
        bucket, rest = _bucket(self._buckets, key), key[_BUCKET_BYTES:]
        first = entry = _find(bucket, rest)
        if first < 0:
            bucket += rest + _CLAIMED
            return []
        if bucket[entry + _REST_BYTES : entry + _ENTRY_BYTES] == _CLAIMED:
            return None
        offsets = []
        while entry >= 0:
            offsets.append(int.from_bytes(bucket[entry + _REST_BYTES : entry + _ENTRY_BYTES], "big"))
            entry = _find(bucket, rest, entry + _ENTRY_BYTES)
        # The key's other entries remain: a search finds the first one.
        bucket[first + _REST_BYTES : first + _ENTRY_BYTES] = _CLAIMED
        return offsets


class SeenKeys:
    """The keys seen so far in a source that is not joined: eight bytes per key, plus room to grow.

    80 bits of its digest identify a key: with 10^9 keys, the chance of any collision is one in two million.
    """

    def __init__(self) -> None:
        self._buckets: list[bytearray | None] = [None] * (1 << 8 * _BUCKET_BYTES)

    def add(self, key: bytes) -> bool:
        """Add a key (its digest); return whether it is new."""
        bucket, rest = _bucket(self._buckets, key), key[_BUCKET_BYTES : _BUCKET_BYTES + _SEEN_BYTES]
        if _find(bucket, rest, entry_bytes=_SEEN_BYTES) >= 0:
            return False
        bucket += rest
        return True


def _bucket(buckets: list[bytearray | None], key: bytes) -> bytearray:
    number = key[0] << 8 | key[1]
    bucket = buckets[number]
    if bucket is None:
        bucket = buckets[number] = bytearray()
    return bucket


def _find(bucket: bytearray, rest: bytes, start: int = 0, *, entry_bytes: int = _ENTRY_BYTES) -> int:
    """Return the offset of a digest's entry, -1 if there is none; a match inside an entry does not count."""
    offset = bucket.find(rest, start)
    while offset > 0 and offset % entry_bytes:
        offset = bucket.find(rest, offset + 1)
    return offset


class Spill:
    """A temporary file of rows. All rows are added first; then each row can be read by its offset.

    `needed_bytes` is the expected size, for error messages. Raise ConfigError if no file can be created in the folder.
    """

    def __init__(self, folder: Path, *, needed_bytes: int) -> None:
        self._folder = folder
        self._needed_bytes = needed_bytes
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed in __exit__
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot create a file ({error.strerror}); give a folder that exists and is writable"
            ) from error
        self._pieces: list[bytes] = []
        self._waiting_bytes = self._written_bytes = self._rows = 0
        self._uris: dict[str, int] = {}
        self._uri_of: list[str] = []

    def add(self, keyed: KeyedRow) -> int:
        """Append a row and return its offset; raise RetriableError if the disk is full."""
        row, key = keyed.row, keyed.key.encode("utf-8", "surrogatepass")
        uri = self._uris.setdefault(row.uri, len(self._uris))
        if uri == len(self._uri_of):
            self._uri_of.append(row.uri)
        offset = self._written_bytes + self._waiting_bytes
        head = _HEAD.pack(row.source, uri, len(key), row.line, row.offset, len(row.content))
        self._pieces += (head, key, row.content)
        self._waiting_bytes += len(head) + len(key) + len(row.content)
        self._rows += 1
        if self._waiting_bytes >= WRITE_BYTES:
            self._write()
        return offset

    def finish(self) -> None:
        """Write the remaining rows, so that all rows can be read; raise RetriableError if the disk is full."""
        self._write()
        # One read returns most rows completely; a longer row takes a second read.
        self._read_bytes = self._written_bytes // max(self._rows, 1) * 5 // 4 + _HEAD.size

    def read(self, offset: int) -> KeyedRow:
        """Return the row at an offset."""
        piece = os.pread(self._file.fileno(), self._read_bytes, offset)
        source, uri, key_bytes, line, row_offset, content_bytes = _HEAD.unpack_from(piece)
        start = _HEAD.size + key_bytes
        end = start + content_bytes
        while len(piece) < end:
            piece += os.pread(self._file.fileno(), end - len(piece), offset + len(piece))
        key = piece[_HEAD.size : start].decode("utf-8", "surrogatepass")
        return KeyedRow(key, Row(source, self._uri_of[uri], line, row_offset, piece[start:end]))

    def walk(self) -> Iterator[str]:
        """Yield the keys of all rows in the order they were added."""
        with os.fdopen(os.dup(self._file.fileno()), "rb", buffering=WALK_BYTES) as file:
            file.seek(0)
            while head := file.read(_HEAD.size):
                _, _, key_bytes, _, _, content_bytes = _HEAD.unpack(head)
                yield file.read(key_bytes).decode("utf-8", "surrogatepass")
                file.seek(content_bytes, os.SEEK_CUR)

    def _write(self) -> None:
        content = memoryview(b"".join(self._pieces))
        self._pieces.clear()
        self._waiting_bytes = 0
        try:
            while content:
                written = self._file.write(content)
                self._written_bytes += written
                content = content[written:]
        except OSError as error:
            needed = max(self._needed_bytes, self._written_bytes + len(content))
            raise RetriableError(
                f"{self._folder}: no space for rows that wait for rows of other sources ({error.strerror}): at least "
                f"{needed} bytes are needed, {self._written_bytes} could be written; free space there, or give another "
                "folder or more memory"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
