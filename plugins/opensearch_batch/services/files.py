"""Base class for read-only stores of files at AI services: an id identifies one file, which never changes."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import IO, ClassVar, NoReturn

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.compression import decompressed
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Stored
from opensearch_batch.core.storage.raw_stream import RawStream
from opensearch_batch.core.types.object_info import Compression, ObjectInfo


class ServiceFiles(ABC):
    """Files by URI (``<scheme>://<id>``) or bare id. Base of a store that `Storage` opens."""

    scheme: ClassVar[str]
    # Describes the files in error messages.
    title: ClassVar[str]

    @abstractmethod
    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and ETag of a file, None if it is absent."""

    @abstractmethod
    def stream(self, uri: str) -> IO[bytes]:
        """Open a file for streaming."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Delete a file if it exists."""

    def id_of(self, uri: str) -> str:
        """Return the id in a URI."""
        return uri.removeprefix(f"{self.scheme}://")

    def open(self, uri: str, *, etag: str | None = None, compression: Compression | None = None) -> IO[bytes]:  # noqa: ARG002 - a file never changes
        return decompressed(self.stream(uri), uri, compression)

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:  # noqa: ARG002 - ids have no folders
        if self.id_of(uri) and (info := self.head(uri)):
            yield info

    def read(self, uri: str) -> Stored | None:
        info = self.head(uri)
        if info is None:
            return None
        with self.open(uri) as stream:
            return Stored(stream.read(), info.etag)

    def _refuse(self, uri: str, *_: object, **__: object) -> NoReturn:
        raise ConfigError(f"{uri}: {self.title} are read-only; give an S3 URI or a local path")

    write = create = replace = upload = _refuse


class _Chunks(RawStream):
    def __init__(self, chunks: Iterator[bytes], close: Callable[[], object]) -> None:
        self._chunks, self._close = chunks, close

    def chunk(self, size: int) -> bytes:  # noqa: ARG002 - the sizes of the chunks are given
        return next(self._chunks, b"")

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()


def stream_of(chunks: Iterator[bytes], close: Callable[[], object]) -> IO[bytes]:
    """Return a stream of non-empty chunks; `close` is called once, when the stream is closed."""
    return io.BufferedReader(_Chunks(chunks, close), READ_BUFFER_BYTES)
