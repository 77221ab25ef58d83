"""What the stores of files at AI services share: an id names one file, which never changes and is only read."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, ClassVar, NoReturn

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Stored
from opensearch_batch.core.types.object_info import ObjectInfo


class ServiceFiles(ABC):
    """Files by URI (``<scheme>://<id>``) or bare id. Base of a store that `Storage` opens."""

    scheme: ClassVar[str]
    # What the files are, for messages.
    title: ClassVar[str]

    @abstractmethod
    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and ETag of a file, None when it is absent."""

    @abstractmethod
    def open(self, uri: str, *, etag: str | None = None) -> IO[bytes]:
        """Open a file for streaming."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Remove a file, if it is there."""

    def id_of(self, uri: str) -> str:
        """Return the id in a URI."""
        return uri.removeprefix(f"{self.scheme}://")

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:  # noqa: ARG002 - ids have no folders
        """Yield the one file."""
        if self.id_of(uri) and (found := self.head(uri)):
            yield found

    def read(self, uri: str) -> Stored | None:
        """Return a file whole, None when it is absent."""
        found = self.head(uri)
        if found is None:
            return None
        with self.open(uri) as stream:
            return Stored(stream.read(), found.etag)

    def _refuse(self, uri: str, *_: object, **__: object) -> NoReturn:
        """Raise ConfigError: the files are only read."""
        raise ConfigError(f"{uri}: {self.title} are only read; give a location on S3 or of this machine")

    write = create = replace = upload = _refuse


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes], close: Callable[[], object]) -> None:
        self._chunks, self._close = chunks, close
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no name before Python 3.12
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()


def stream_of(chunks: Iterator[bytes], close: Callable[[], object]) -> IO[bytes]:
    """Return a stream of chunks, none of which is empty; `close` is called once, when the stream is closed."""
    return io.BufferedReader(_Chunks(chunks, close), READ_BUFFER_BYTES)
