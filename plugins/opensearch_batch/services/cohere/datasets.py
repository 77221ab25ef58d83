"""Datasets at Cohere: their parts are Avro files, which are read as JSON Lines. Retention deletes datasets."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import msgspec

from opensearch_batch.core.errors import ConfigError, NotFound, OutputUnusable, RetriableError
from opensearch_batch.core.storage.read_only import stream_of
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.services.cohere.adapter import SCHEME
from opensearch_batch.services.cohere.client import cohere_errors
from opensearch_batch.services.cohere.single_floats import shortener
from opensearch_batch.services.files import ServiceFiles

if TYPE_CHECKING:
    from cohere import Client
    from cohere.types import Dataset

TIMEOUT_S = 120.0


class CohereDatasets(ServiceFiles):
    """Datasets by id: ``cohere://<dataset id>``."""

    scheme, title = SCHEME, "datasets at Cohere"

    def __init__(self, api: Client) -> None:
        self._api = api

    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and ETag of a dataset, None if it is absent; the ETag is its id, as datasets never change."""
        dataset = self._dataset(uri)
        if dataset is None:
            return None
        size_bytes = sum(int(getattr(part, "size_bytes", None) or 0) for part in dataset.dataset_parts or [])
        return ObjectInfo(uri, size_bytes, str(dataset.id))

    def stream(self, uri: str) -> IO[bytes]:
        """Open a dataset's rows as a stream, one JSON object per line.

        Raises:
            ConfigError: the dataset does not exist, or Cohere refuses the key.
            RetriableError: the dataset is not ready yet; or Cohere does not answer, also during the read.
            OutputUnusable: the dataset has failed; or, during the read, a part is damaged.
        """
        dataset = self._dataset(uri)
        if dataset is None:
            raise ConfigError(f"{uri}: Cohere has no such dataset; correct the id, or give the key of its account")
        parts = [str(part.url) for part in dataset.dataset_parts or []]
        if not parts:
            # A dataset that is not ready must not be read as an empty one.
            if (status := str(dataset.validation_status)) in {"failed", "skipped"}:
                raise OutputUnusable(f"{uri}: Cohere reports the dataset as {status}")
            raise RetriableError(f"{uri}: the dataset has no parts yet ({status}); run again later")
        rows = _lines(uri, parts)
        return stream_of(rows, rows.close)

    def _dataset(self, uri: str) -> Dataset | None:
        try:
            with cohere_errors(uri):
                dataset: Dataset = self._api.datasets.get(id=self.id_of(uri)).dataset
        except NotFound:
            return None
        return dataset

    def delete(self, uri: str) -> None:
        with suppress(NotFound), cohere_errors(uri):
            self._api.datasets.delete(id=self.id_of(uri))


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
    """Yield the rows of one Avro file; errors of the download are not converted."""
    import fastavro
    from urllib3.exceptions import HTTPError

    encode = msgspec.json.Encoder().encode
    try:
        reader = fastavro.reader(part)
        shorten = shortener(reader.writer_schema)
        for row in reader:
            yield encode(row if shorten is None else shorten(row)) + b"\n"
    except HTTPError:
        raise
    except Exception as error:  # noqa: BLE001 - fastavro raises exceptions of any type for damaged data
        raise OutputUnusable(f"{uri}: a part of the dataset is damaged or truncated ({type(error).__name__})") from None
