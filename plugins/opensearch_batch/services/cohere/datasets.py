"""Datasets at Cohere, read as JSON Lines: their parts are Avro files, a row an object each. Retention deletes them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn

import msgspec

from opensearch_batch.core.errors import ConfigError, NotFound, OutputUnusable, RetriableError
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.services.cohere.adapter import SCHEME
from opensearch_batch.services.cohere.errors import cohere_errors
from opensearch_batch.services.cohere.single_floats import change_of
from opensearch_batch.services.files import ServiceFiles, stream_of

if TYPE_CHECKING:
    from cohere import Client
    from cohere.types import Dataset

TIMEOUT_S = 120.0


class CohereDatasets(ServiceFiles):
    """Datasets by id: ``cohere://<dataset id>``.

    Args:
        api: a `cohere` client.
    """

    scheme, title = SCHEME, "datasets at Cohere"

    def __init__(self, api: Client) -> None:
        self._api = api

    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and ETag of a dataset, None when it is absent; one never changes under its id."""
        found = self._dataset(uri)
        if found is None:
            return None
        size_bytes = sum(int(getattr(part, "size_bytes", None) or 0) for part in found.dataset_parts or [])
        return ObjectInfo(uri, size_bytes, str(found.id))

    def open(self, uri: str, *, etag: str | None = None) -> IO[bytes]:  # noqa: ARG002 - a dataset never changes
        """Open a dataset's rows for streaming, one JSON object a line.

        Raises:
            ConfigError: there is no such dataset, or the key is refused.
            RetriableError: the service stays away, also while reading; or the dataset is not ready yet.
            OutputUnusable: the dataset is none that can be read; or a part is damaged, while reading.
        """
        found = self._dataset(uri)
        if found is None:
            raise ConfigError(f"{uri}: Cohere knows no such dataset; mend the id, or give the key of its own account")
        parts = [str(part.url) for part in found.dataset_parts or []]
        if not parts:
            # A dataset that is not ready must not read as one without rows.
            _refuse_unready(uri, str(found.validation_status))
        rows = _lines(uri, parts)
        return stream_of(rows, rows.close)

    def _dataset(self, uri: str) -> Dataset | None:
        try:
            with cohere_errors(uri):
                found: Dataset = self._api.datasets.get(id=self.id_of(uri)).dataset
        except NotFound:
            return None
        return found

    def delete(self, uri: str) -> None:
        """Remove a dataset, if it is there."""
        with suppress(NotFound), cohere_errors(uri):
            self._api.datasets.delete(id=self.id_of(uri))


def _refuse_unready(uri: str, status: str) -> NoReturn:
    if status in {"failed", "skipped"}:
        raise OutputUnusable(f"{uri}: Cohere says the dataset is {status}, and shows no part of it")
    raise RetriableError(f"{uri}: Cohere shows no part of the dataset yet ({status}); run again later")


def _lines(uri: str, parts: list[str]) -> Generator[bytes]:
    """Yield each row as a line."""
    import requests
    from urllib3.exceptions import HTTPError

    for part in parts:
        try:
            # The URL is signed: it needs no key, and no message contains it.
            with requests.get(part, stream=True, timeout=TIMEOUT_S) as response:
                response.raise_for_status()
                response.raw.decode_content = True
                yield from _avro_lines(uri, response.raw)
        except (requests.RequestException, HTTPError) as error:
            raise RetriableError(
                f"{uri}: a part of the dataset cannot be read ({type(error).__name__}); run again"
            ) from None


def _avro_lines(uri: str, part: Any) -> Generator[bytes]:  # noqa: ANN401 - a response's raw stream, of urllib3's own type
    """Yield the rows of one Avro file; what breaks the transfer is passed on as it is."""
    import fastavro
    from urllib3.exceptions import HTTPError

    encode = msgspec.json.Encoder().encode
    try:
        reader = fastavro.reader(part)
        short = change_of(reader.writer_schema)
        for row in reader:
            yield encode(row if short is None else short(row)) + b"\n"
    except HTTPError:
        raise
    except Exception as error:  # noqa: BLE001 - fastavro raises whatever its decoder stumbles over in damaged bytes
        raise OutputUnusable(f"{uri}: a part of the dataset is damaged or cut off ({type(error).__name__})") from None
