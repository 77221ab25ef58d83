"""Opens objects and reads their rows in a given format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Protocol

from opensearch_batch.core.formats.any_json import AnyJson
from opensearch_batch.core.formats.csv import StrictCsv
from opensearch_batch.core.formats.dead_letter_rows import DeadLetterRows
from opensearch_batch.core.formats.json import PlainJson
from opensearch_batch.core.formats.jsonl import JsonLines, RawLines
from opensearch_batch.core.formats.parquet import ConvertedParquet, Parquet
from opensearch_batch.core.storage.compression import COMPRESSED
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.object_info import Compression
from opensearch_batch.core.types.rows import ROW_LIMIT, RowLimit, Source, SourceEntry

Read = Callable[[Objects, int, Source], Iterator[SourceEntry]]


class RowFormat(Protocol):
    """Reads the rows of objects in one format; the fields of an implementation are the options of the format."""

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the rows of a decompressed object. An invalid row is rejected, and the next row is read."""


# The formats by their names in a pipeline file. These formats validate every row, because batch jobs are paid per row.
BY_NAME: dict[Format, RowFormat] = {
    "jsonl": JsonLines(),
    "json": PlainJson(),
    "csv": StrictCsv(),
    "parquet": ConvertedParquet(),
    "dead_letters": DeadLetterRows(),
}
_EXTENSIONS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet"}
ANY_JSON = AnyJson(JsonLines())


def format_of(uri: str, configured: Format | None) -> RowFormat:
    """Return the format of an object: the configured one, else by file extension, else `ANY_JSON`."""
    if configured is not None:
        return BY_NAME[configured]
    name = uri
    while name.endswith(COMPRESSED):
        name = name.rpartition(".")[0]
    return next((BY_NAME[kind] for extension, kind in _EXTENSIONS.items() if name.endswith(extension)), ANY_JSON)


def reader(row_format: RowFormat, compression: Compression | None = None, limit: RowLimit = ROW_LIMIT) -> Read:
    """Return a function that reads the rows of all objects of a source in order.

    By default, file extensions select the compression. The function raises ConfigError if an object cannot be read in
    this format, FatalError if an object is damaged or has changed since it was listed, and RetriableError if the object
    store is not available.
    """
    if compression is not None and isinstance(row_format, Parquet):
        # A Parquet file records its own compression, so Data Prepper ignores the option of the source.
        compression = "none"

    def read(objects: Objects, number: int, source: Source) -> Iterator[SourceEntry]:
        for item in source.objects:
            with objects.open(item.uri, etag=item.etag, compression=compression) as stream:
                yield from row_format.read(stream, number, item.uri, limit)

    return read


read_rows = reader(RawLines())
# For objects that users write, whose JSON may have any layout.
read_any_rows = reader(AnyJson(RawLines()))
