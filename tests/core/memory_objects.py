"""Objects in memory, for tests that write thousands of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from opensearch_batch.core.errors import ConfigError, ObjectChanged, RetriableError
from opensearch_batch.core.storage.compression import decompressed
from opensearch_batch.core.storage.globs import is_selected
from opensearch_batch.core.storage.objects import Stored
from opensearch_batch.core.types.object_info import Compression, ObjectInfo


class MemoryObjects:
    """A store of one process; an ETag is the digest of the content. `test_json_document` runs over it, too.

    Args:
        clock: returns the time in epoch seconds.
    """

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._stored: dict[str, Stored] = {}
        self._modified: dict[str, float] = {}
        self.clock = clock

    def list(
        self,
        uri: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        after: str = "",
        limit: int | None = None,  # noqa: ARG002 - all objects are here
    ) -> Iterator[ObjectInfo]:
        """Yield the objects with a prefix in key order."""
        below = uri.rfind("/") + 1
        for key in sorted(self._stored):
            is_listed = key.startswith(uri) and key > after and is_selected(key[below:], include, exclude)
            if is_listed and (found := self._info(key)):
                yield found

    def head(self, uri: str) -> ObjectInfo | None:
        """Return the metadata of an object, None if it is absent."""
        return self._info(uri)

    def read(self, uri: str) -> Stored | None:
        """Return an object, None if it is absent."""
        return self._stored.get(uri)

    def write(self, uri: str, content: bytes) -> None:
        """Write an object."""
        self._stored[uri] = Stored(content, hashlib.sha256(content).hexdigest())
        self._modified[uri] = self.clock()

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent."""
        if uri in self._stored:
            return False
        # Whatever a subclass does before a write, nothing comes between the condition and the write.
        MemoryObjects.write(self, uri, content)
        return True

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag."""
        stored = self._stored.get(uri)
        if stored is None or stored.etag != etag:
            return False
        MemoryObjects.write(self, uri, content)
        return True

    def upload(self, uri: str, content: IO[bytes]) -> None:
        """Write an object from an open file."""
        self.write(uri, content.read())

    def delete(self, uri: str) -> None:
        """Delete an object if it exists."""
        self._stored.pop(uri, None)

    def open(
        self, uri: str, *, etag: str | None = None, compression: Compression | None = None, offset: int = 0
    ) -> IO[bytes]:
        """Open an object, decompressed; with `etag` only that version."""
        stored = self.read(uri)
        if stored is None:
            raise ConfigError(f"{uri}: no such object")
        if etag not in (None, stored.etag):
            raise ObjectChanged(f"{uri} changed while it was being read; run again")
        return decompressed(io.BufferedReader(io.BytesIO(stored.content[offset:])), uri, compression)

    def _info(self, uri: str) -> ObjectInfo | None:
        stored = self._stored.get(uri)
        return None if stored is None else ObjectInfo(uri, len(stored.content), stored.etag, self._modified[uri])


class LossyObjects(MemoryObjects):
    """Loses responses: the next write is stored, but reported as lost.

    An S3 client repeats such a write, whose condition then fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.die = False
        self.writes = 0

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent."""
        return self._answer(stored=super().create(uri, content))

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag."""
        return self._answer(stored=super().replace(uri, content, etag=etag))

    def _answer(self, *, stored: bool) -> bool:
        self.writes += stored
        if stored and self.die:
            raise RetriableError("connection reset")
        if stored and self.lost:
            self.lost -= 1
            return False
        return stored
