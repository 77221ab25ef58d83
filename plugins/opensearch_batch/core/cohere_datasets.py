"""Datasets at Cohere, read as JSON Lines: their parts are Avro files, each row an object. Nothing is written here."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import IO, Any, NoReturn

import msgspec

from opensearch_batch.core.cohere_errors import cohere_errors
from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.objects import READ_BUFFER_BYTES, ObjectInfo, Stored

SCHEME = "cohere://"
TIMEOUT_S = 120.0


class CohereDatasets:
    """Datasets by id: ``cohere://<dataset id>``.

    Args:
        client: a `cohere` client; base URL and key are its own.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - cohere's client is imported where it is made
        self._client = client

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:  # noqa: ARG002 - the protocol's
        """Yield the one dataset: ids have no folders."""
        if uri.removeprefix(SCHEME) and (found := self.head(uri)):
            yield found

    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and ETag of a dataset, None when it is absent; one never changes under its id."""
        found = self._dataset(uri)
        if found is None:
            return None
        size_bytes = sum(int(getattr(part, "size_bytes", None) or 0) for part in found.dataset_parts or [])
        return ObjectInfo(uri, size_bytes, str(found.id))

    def read(self, uri: str) -> Stored | None:
        """Return a dataset's rows whole, None when it is absent."""
        found = self.head(uri)
        if found is None:
            return None
        with self.open(uri) as stream:
            return Stored(stream.read(), found.etag)

    def open(self, uri: str, *, etag: str | None = None) -> IO[bytes]:  # noqa: ARG002 - a dataset never changes
        """Open a dataset's rows for streaming, one JSON object a line.

        Raises:
            ConfigError: there is no such dataset, or the key is refused.
            RetriableError: the service stays away; also while reading.
            FatalError: a part is damaged; while reading.
        """
        found = self._dataset(uri)
        if found is None:
            raise ConfigError(f"{uri}: Cohere knows no such dataset; mend the id, or give the key of its own account")
        return io.BufferedReader(_Rows(uri, [str(part.url) for part in found.dataset_parts or []]), READ_BUFFER_BYTES)

    def _dataset(self, uri: str) -> Any | None:  # noqa: ANN401 - cohere's model of a dataset
        from cohere.errors import NotFoundError

        with cohere_errors(uri):
            try:
                return self._client.datasets.get(id=uri.removeprefix(SCHEME)).dataset
            except NotFoundError:
                return None

    def _refuse(self, uri: str, *_: object, **__: object) -> NoReturn:
        """Raise ConfigError: nothing is written there."""
        raise ConfigError(f"{uri}: datasets at Cohere are only read; give a location on S3 or of this machine")

    write = create = replace = upload = delete = _refuse


class _Rows(io.RawIOBase):
    """The rows of Avro files as a raw stream of JSON lines."""

    def __init__(self, uri: str, parts: list[str]) -> None:
        self._uri = uri
        self._lines = _lines(uri, parts)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no name before Python 3.12
        if not self._rest:
            self._rest = memoryview(next(self._lines, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        self._lines.close()
        super().close()


def _lines(uri: str, parts: list[str]) -> Any:  # noqa: ANN401 - a generator
    """Yield each row as a line. The value of a 32-bit float is written whole, so that the index reads the same one."""
    import fastavro
    import requests

    encode = msgspec.json.Encoder().encode
    for part in parts:
        try:
            # The address is signed: it needs no key, and stands in no message.
            with requests.get(part, stream=True, timeout=TIMEOUT_S) as response:
                response.raise_for_status()
                response.raw.decode_content = True
                content: Any = response.raw
                for row in fastavro.reader(content):
                    yield encode(row) + b"\n"
        except requests.RequestException as error:
            raise RetriableError(
                f"{uri}: a part of the dataset cannot be read ({type(error).__name__}); run again"
            ) from None
        except (EOFError, ValueError, IndexError) as error:
            raise FatalError(f"{uri}: a part of the dataset is damaged or cut off ({error})") from None
