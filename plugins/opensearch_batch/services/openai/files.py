"""Files at OpenAI: inputs and outputs of batches. Retention deletes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from opensearch_batch.core.errors import ConfigError, NotFound, RetriableError
from opensearch_batch.core.storage.read_only import stream_of
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.services.files import ServiceFiles
from opensearch_batch.services.openai.adapter import SCHEME
from opensearch_batch.services.openai.client import openai_errors

if TYPE_CHECKING:
    from openai import OpenAI

CHUNK_BYTES = 1 << 16


class OpenAIFiles(ServiceFiles):
    """Files by id (``file-…``, or ``openai://file-…``)."""

    scheme, title = SCHEME, "files at OpenAI"

    def __init__(self, api: OpenAI) -> None:
        self._api = api

    def head(self, uri: str) -> ObjectInfo | None:
        try:
            with openai_errors(uri):
                file = self._api.files.retrieve(self.id_of(uri))
        except NotFound:
            return None
        return ObjectInfo(uri, file.bytes or 0, f"{file.id}-{file.bytes}-{file.created_at}")

    def stream(self, uri: str) -> IO[bytes]:
        """Open a file for streaming; raise RetriableError, also during the read, if OpenAI does not answer."""
        try:
            with openai_errors(uri):
                response = self._api.files.with_streaming_response.content(self.id_of(uri))
                chunks = response.__enter__().iter_bytes(CHUNK_BYTES)
        except NotFound:
            cause = "OpenAI has no such file; correct the id, or give the key of the file's project"
            raise ConfigError(f"{uri}: {cause}") from None
        return stream_of(_content(uri, chunks), lambda: response.__exit__(None, None, None))

    def delete(self, uri: str) -> None:
        with suppress(NotFound), openai_errors(uri):
            self._api.files.delete(self.id_of(uri))


def _content(uri: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a file; an error of the download names the file."""
    try:
        yield from chunks
    except Exception as error:  # noqa: BLE001 - the client does not convert the errors of its transport
        raise RetriableError(f"{uri}: download from OpenAI interrupted ({type(error).__name__}); run again") from None
