"""The input of a job, while its lines are collected."""

from __future__ import annotations

import hashlib
import io
from typing import IO

from opensearch_batch.core.storage.temporary import Spool

IN_MEMORY_BYTES = 32 << 20
BLOCK_BYTES = 256 << 10


class JobInput:
    """Lines of a job in memory, or in a temporary file if they are large, with their digest."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._buffer: list[bytes] = []
        self._buffer_bytes = 0
        self._blocks: list[bytes] = []
        self._file: IO[bytes] | None = None

    def add(self, line: bytes) -> None:
        """Add a line without its end."""
        self._buffer += line, b"\n"
        self._buffer_bytes += len(line) + 1
        self.size_bytes += len(line) + 1
        if self._buffer_bytes >= BLOCK_BYTES:
            self._flush()

    def digest(self) -> str:
        """Return the digest of all lines."""
        self._flush()
        return self._digest.hexdigest()

    def open(self) -> IO[bytes]:
        """Return the lines as a file."""
        self._flush()
        if self._file is None:
            return io.BytesIO(b"".join(self._blocks))
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Close the temporary file."""
        self._blocks.clear()
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        """Digest and store the buffered lines together; one by one would be slow."""
        block = b"".join(self._buffer)
        self._buffer.clear()
        self._buffer_bytes = 0
        self._digest.update(block)
        if self._file is None and self.size_bytes > IN_MEMORY_BYTES:
            self._file = Spool(memory_bytes=1)
            self._file.writelines(self._blocks)
            self._blocks.clear()
        if self._file is None:
            self._blocks.append(block)
        else:
            self._file.write(block)
