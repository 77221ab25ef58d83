"""Files at OpenAI: inputs and outputs of batches. They are read, and retention deletes them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn

from opensearch_batch.core.errors import ConfigError, NotFound, RetriableError
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Stored
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.services.openai.errors import openai_errors

if TYPE_CHECKING:
    from openai import OpenAI

SCHEME = "openai"
CHUNK_BYTES = 1 << 16


class OpenAIFiles:
    """Files by id (``file-…``, or ``openai://file-…``).

    Args:
        api: an `openai` client.
    """

    def __init__(self, api: OpenAI) -> None:
        self._api = api

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:  # noqa: ARG002 - the protocol's
        """Yield the one file: ids have no folders."""
        if _id(uri) and (found := self.head(uri)):
            yield found

    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and ETag of a file, None when it is absent; a file never changes under its id."""
        try:
            with openai_errors(uri):
                found = self._api.files.retrieve(_id(uri))
        except NotFound:
            return None
        return ObjectInfo(uri, found.bytes or 0, f"{found.id}-{found.bytes}-{found.created_at}")

    def read(self, uri: str) -> Stored | None:
        """Return a file whole, None when it is absent."""
        found = self.head(uri)
        if found is None:
            return None
        with self.open(uri) as stream:
            return Stored(stream.read(), found.etag)

    def open(self, uri: str, *, etag: str | None = None) -> IO[bytes]:  # noqa: ARG002 - a file never changes under its id
        """Open a file for streaming.

        Raises:
            ConfigError: there is no such file, or the key is refused.
            RetriableError: the service stays away; also while reading.
        """
        try:
            with openai_errors(uri):
                response = self._api.files.with_streaming_response.content(_id(uri))
                return io.BufferedReader(_Content(response, uri), READ_BUFFER_BYTES)
        except NotFound:
            cause = "OpenAI knows no such file; mend the id, or give the key of its own project"
            raise ConfigError(f"{uri}: {cause}") from None

    def delete(self, uri: str) -> None:
        """Remove a file, if it is there."""
        with suppress(NotFound), openai_errors(uri):
            self._api.files.delete(_id(uri))

    def _refuse(self, uri: str, *_: object, **__: object) -> NoReturn:
        """Raise ConfigError: the files are only read."""
        raise ConfigError(f"{uri}: files at OpenAI are only read; give a location on S3 or of this machine")

    write = create = replace = upload = _refuse


class _Content(io.RawIOBase):
    """The content of a file as a raw stream that names the file when the connection breaks."""

    def __init__(self, response: Any, uri: str) -> None:  # noqa: ANN401 - openai's context manager of a response
        self._uri, self._response = uri, response
        self._chunks: Iterator[bytes] = response.__enter__().iter_bytes(CHUNK_BYTES)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no name before Python 3.12
        if not self._rest:
            try:
                self._rest = memoryview(next(self._chunks, b""))
            except Exception as error:  # noqa: BLE001 - the client passes on whatever its transport raises
                raise RetriableError(
                    f"{self._uri}: the transfer from OpenAI broke off ({type(error).__name__}); run again"
                ) from None
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._response.__exit__(None, None, None)
        super().close()


def _id(uri: str) -> str:
    return uri.removeprefix(f"{SCHEME}://")
