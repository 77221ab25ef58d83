"""Files at OpenAI, through its Files API: what batch jobs took and gave. They are read, and removed in the end."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Stored
from opensearch_batch.core.types.object_info import ObjectInfo

if TYPE_CHECKING:
    from openai import OpenAI

SCHEME = "openai://"
CHUNK_BYTES = 1 << 16


class OpenAIFiles:
    """Files by id (``file-…``, or ``openai://file-…``).

    Args:
        client: an `openai` client; base URL and key are its own.
    """

    def __init__(self, client: OpenAI) -> None:
        self._client = client

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:  # noqa: ARG002 - the protocol's
        """Yield the one file: ids have no folders."""
        if uri.removeprefix(SCHEME) and (found := self.head(uri)):
            yield found

    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and ETag of a file, None when it is absent; a file never changes under its id."""
        from openai import NotFoundError

        file_id = uri.removeprefix(SCHEME)
        with _errors(uri):
            try:
                found = self._client.files.retrieve(file_id)
            except NotFoundError:
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
        with _errors(uri):
            response = self._client.files.with_streaming_response.content(uri.removeprefix(SCHEME))
            return io.BufferedReader(_Content(response, uri), READ_BUFFER_BYTES)

    def delete(self, uri: str) -> None:
        """Remove a file, if it is there."""
        import openai

        with _errors(uri), suppress(openai.NotFoundError):
            self._client.files.delete(uri.removeprefix(SCHEME))

    def _refuse(self, uri: str, *_: object, **__: object) -> NoReturn:
        """Raise ConfigError: nothing is written there."""
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
            except Exception as error:  # noqa: BLE001 - the client passes on what its transport raises, its own affair
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


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Explain what the service says; its messages may quote the key, so they are not repeated."""
    import openai

    try:
        yield
    except openai.NotFoundError:
        raise ConfigError(
            f"{uri}: OpenAI knows no such file; mend the id, or give the key of its own project"
        ) from None
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise ConfigError(
            f"{uri}: OpenAI refuses the key ({error.status_code}); mend openAI_key or the connection"
        ) from None
    except (openai.RateLimitError, openai.InternalServerError) as error:
        raise RetriableError(f"{uri}: OpenAI answered {error.status_code}; run again later") from None
    except openai.APIStatusError as error:
        raise FatalError(f"{uri}: OpenAI answered {error.status_code}") from None
    except openai.APIConnectionError:
        raise RetriableError(f"{uri}: OpenAI does not answer; run again later") from None
