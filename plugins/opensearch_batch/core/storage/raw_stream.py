"""Base for raw byte streams that are read chunk by chunk."""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import Any


class RawStream(io.RawIOBase):
    """A raw stream, readable by `io.BufferedReader`; a subclass only implements `chunk`."""

    _rest = memoryview(b"")

    @abstractmethod
    def chunk(self, size: int) -> bytes:
        """Return the next bytes, preferably about `size`; ``b""`` only at the end."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no name before Python 3.12
        """Copy the rest of the last chunk, or the start of the next one, into the buffer."""
        if not self._rest:
            self._rest = memoryview(self.chunk(len(buffer)))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
