"""Base class for stores that are only read, and streams of chunks that they return."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import IO, NoReturn

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Stored
from opensearch_batch.core.storage.raw_stream import RawStream
from opensearch_batch.core.types.object_info import Compression, ObjectInfo


class ReadOnlyObjects(ABC):
    """A store whose objects can be read. Base of implementations of `Objects`."""

    @abstractmethod
    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and ETag of an object, None if it is absent."""

    @abstractmethod
    def open(
        self, uri: str, *, etag: str | None = None, compression: Compression | None = None, offset: int = 0
    ) -> IO[bytes]:
        """Open an object for streaming."""

    @property
    @abstractmethod
    def refusal(self) -> str:
        """Why nothing can be written, with the remedy."""

    def read(self, uri: str) -> Stored | None:
        """Return an object with its ETag, None if it is absent."""
        info = self.head(uri)
        if info is None:
            return None
        with self.open(uri) as stream:
            return Stored(stream.read(), info.etag)

    def refuse(self, uri: str, *_: object, **__: object) -> NoReturn:
        """Raise ConfigError: the store is only read."""
        raise ConfigError(f"{uri}: {self.refusal}")

    write = create = replace = upload = refuse


class _Chunks(RawStream):
    def __init__(self, chunks: Iterator[bytes], close: Callable[[], object]) -> None:
        self._chunks, self._close = chunks, close

    def chunk(self, size: int) -> bytes:  # noqa: ARG002 - the sizes of the chunks are given
        return next(self._chunks, b"")

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()


def stream_of(chunks: Iterator[bytes], close: Callable[[], object] = lambda: None) -> IO[bytes]:
    """Return a stream of non-empty chunks; `close` is called once, when the stream is closed."""
    return io.BufferedReader(_Chunks(chunks, close), READ_BUFFER_BYTES)
