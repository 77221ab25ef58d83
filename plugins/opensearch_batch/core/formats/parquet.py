"""Reads Parquet files in batches of rows. Source: Data Prepper's ParquetInputCodec (2.17)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, cast

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.formats.json_text import encode
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.rows import Rejected, Row, RowLimit, SourceEntry

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_ROWS = 512
# What converting a cell raises: a time with nanoseconds or beyond the year 9999, text that is not UTF-8, a map with
# a repeated key, a type that JSON lacks.
_BAD_CELL = (ValueError, OverflowError, KeyError, TypeError)


class Parquet(msgspec.Struct, frozen=True):
    """Reads the rows of a Parquet file.

    With `as_stored`, times are the stored numbers, as in Data Prepper, and maps are objects. Without it, times are
    strings, and maps are lists of pairs.
    """

    as_stored: bool = True

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the rows as JSON objects; the line of a row is its position in the file.

        A row with a cell that JSON cannot hold is rejected.

        Raises:
            FatalError: the file is damaged or not Parquet, or two columns have one name.
        """
        import pyarrow as pa

        with Spool() as file:
            # Parquet readers start at the end of the file, so it is copied to disk.
            while chunk := stream.read(READ_BUFFER_BYTES):
                file.write(chunk)
            try:
                for at, (row, reason) in enumerate(self._rows(file, uri), 1):
                    entry = Row(source, uri, at, 0, row)
                    yield limit.check(entry) if reason is None else Rejected((entry,), reason)
            except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
                raise FatalError(f"{uri}: damaged, or not Parquet ({error}); upload the object again") from error

    def _rows(self, file: IO[bytes], uri: str) -> Iterator[tuple[bytes, str | None]]:
        """Yield the JSON text of each row, or what can be read of it and the reason why it is rejected."""
        import pyarrow as pa
        from pyarrow import parquet

        with parquet.ParquetFile(file) as table:
            columns = table.schema_arrow
            _refuse_duplicates(columns, uri)
            schema = pa.schema([field.with_type(_stored(field.type)) for field in columns]) if self.as_stored else None
            for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                try:
                    rows = [(encode(row), None) for row in _objects(batch, schema)]
                except _BAD_CELL:
                    # One cell is enough for a batch not to be converted.
                    yield from (_row(batch.slice(at, 1), schema) for at in range(batch.num_rows))
                else:
                    yield from rows


def _objects(batch: pa.RecordBatch, schema: pa.Schema | None) -> list[dict[str, Any]]:
    """Return the rows of a batch; with a schema, its columns are converted to it."""
    if schema is None:
        return cast("list[dict[str, Any]]", batch.to_pylist())
    return cast("list[dict[str, Any]]", batch.cast(schema).to_pylist(maps_as_pydicts="strict"))


def _row(batch: pa.RecordBatch, schema: pa.Schema | None) -> tuple[bytes, str | None]:
    """Return the JSON text of the only row of a batch; without its bad cells, and the reason, if it has any."""
    import pyarrow as pa

    row, reason = dict[str, msgspec.Raw](), None
    for name in batch.schema.names:
        cell = batch.select([name])
        try:
            of_cell = None if schema is None else pa.schema([schema.field(name)])
            row[name] = msgspec.Raw(encode(_objects(cell, of_cell)[0][name]))
        except _BAD_CELL as error:
            reason = reason or f"column {name} cannot be written as JSON: {error}"
    return encode(row), reason


def _refuse_duplicates(schema: pa.Schema, uri: str) -> None:
    if repeated := [name for name, times in Counter(schema.names).items() if times > 1]:
        raise FatalError(f"{uri}: it has several columns named {', '.join(repeated)}; rename them and upload it again")


def _stored(kind: pa.DataType) -> pa.DataType:
    """Return the type to which a column is cast, so that times become the stored numbers."""
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
