"""Reads Parquet with pyarrow, a batch of rows at a time. Source: Data Prepper's ParquetInputCodec (2.17)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.formats.json_text import encode
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES
from opensearch_batch.core.types.rows import Rejected, Row, RowLimit, SourceEntry

PARQUET_ROWS = 512


class Parquet(msgspec.Struct, frozen=True):
    """The rows of a Parquet file.

    With `as_stored`, times are the numbers that are stored, as in Data Prepper, and maps are objects; without it, times
    are strings, and maps are lists of pairs.
    """

    as_stored: bool = True

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the rows as objects; a row's line is its position.

        Raises:
            FatalError: the file is damaged, or not Parquet.
        """
        import pyarrow as pa

        with tempfile.TemporaryFile() as file:
            # A Parquet file is read from its end.
            while chunk := stream.read(READ_BUFFER_BYTES):
                file.write(chunk)
            try:
                for at, row in enumerate(self._rows(file), 1):
                    yield _entry(row, source, uri, at, limit)
            except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
                raise FatalError(f"{uri}: damaged, or not Parquet ({error}); upload the object again") from error

    def _rows(self, file: IO[bytes]) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        from pyarrow import parquet

        with parquet.ParquetFile(file) as table:
            if not self.as_stored:
                for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                    yield from batch.to_pylist()
                return
            schema = pa.schema([field.with_type(_stored(field.type)) for field in table.schema_arrow])
            for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                yield from batch.cast(schema).to_pylist(maps_as_pydicts="strict")


def _entry(row: dict[str, Any], source: int, uri: str, at: int, limit: RowLimit) -> SourceEntry:
    try:
        return limit.check(Row(source, uri, at, 0, encode(row)))
    except (TypeError, UnicodeEncodeError) as error:
        shown = Row(source, uri, at, 0, repr(row).encode(errors="replace"))
        return Rejected((shown,), f"the row is not JSON: {error}")


def _stored(kind: Any) -> Any:  # noqa: ANN401 - pyarrow ships no types
    """Return the type a column is read as: times are the stored numbers."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_date32(kind) or is_a.is_time32(kind):
        return pa.int32()
    if is_a.is_timestamp(kind) or is_a.is_time64(kind) or is_a.is_date64(kind) or is_a.is_duration(kind):
        return pa.int64()
    if is_a.is_list(kind) or is_a.is_large_list(kind):
        make = pa.list_ if is_a.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_stored(kind.value_type)))
    if is_a.is_struct(kind):
        return pa.struct([field.with_type(_stored(field.type)) for field in kind])
    if is_a.is_map(kind):
        return pa.map_(kind.key_type, kind.item_field.with_type(_stored(kind.item_type)))
    return kind
