"""Reads Parquet files in batches of rows. Source: Data Prepper's ParquetInputCodec (2.17)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

import msgspec

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.rows import Rejected, Row, RowLimit, SourceEntry

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_ROWS = 512
# Errors of the conversion of a cell: a time with nanoseconds or beyond the year 9999, text that is not UTF-8, a map
# with a repeated key, a type that JSON lacks.
_CELL_ERRORS = (ValueError, OverflowError, KeyError, TypeError)


def _as_python(value: object) -> object:
    """Return a time that pyarrow returns in a type of pandas where that is installed; raise ValueError for nanoseconds.

    Without pandas, pyarrow returns Python's own types, and refuses nanoseconds itself.
    """
    for name, nanoseconds in (("to_pydatetime", "nanosecond"), ("to_pytimedelta", "nanoseconds")):
        if (convert := getattr(value, name, None)) is not None:
            if getattr(value, nanoseconds):
                raise ValueError(f"Nanosecond resolution of {value} is not supported")
            python: object = convert()
            return python
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


encode = msgspec.json.Encoder(decimal_format="number", enc_hook=_as_python).encode


class Parquet(Options, frozen=True, kw_only=True):
    """Reads the rows of a Parquet file. Times are the stored numbers, as in Data Prepper, and maps are objects."""

    as_stored: ClassVar[bool] = True

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the rows as JSON objects; the line of a row is its position in the file.

        A row with a cell that JSON cannot represent is rejected. Raise FatalError if the file is damaged or not
        Parquet, or several columns have the same name.
        """
        import pyarrow as pa

        with Spool() as file:
            # A Parquet reader starts at the end of the file, so the stream is copied to a temporary file.
            while chunk := stream.read(READ_BUFFER_BYTES):
                file.write(chunk)
            try:
                for number, (row, reason) in enumerate(self._rows(file, uri), 1):
                    entry = Row(source, uri, number, 0, row)
                    yield limit.check(entry) if reason is None else Rejected((entry,), reason)
            except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
                raise FatalError(f"{uri}: damaged, or not Parquet ({error}); upload the object again") from error

    def _rows(self, file: IO[bytes], uri: str) -> Iterator[tuple[bytes, str | None]]:
        """Yield the JSON text of each row; for a rejected row, its readable cells and the reason for the rejection."""
        import pyarrow as pa
        from pyarrow import parquet

        with parquet.ParquetFile(file) as table:
            columns = table.schema_arrow
            _refuse_duplicates(columns, uri)
            schema = (
                pa.schema([field.with_type(_storage_type(field.type)) for field in columns]) if self.as_stored else None
            )
            for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                try:
                    rows = [(encode(row), None) for row in _objects(batch, schema)]
                except _CELL_ERRORS:
                    # One invalid cell prevents the conversion of the batch, so its rows are converted separately.
                    yield from (_row(batch.slice(at, 1), schema) for at in range(batch.num_rows))
                else:
                    yield from rows


class ConvertedParquet(Parquet, frozen=True, kw_only=True):
    """The format of pipeline files: times are strings, and maps are lists of pairs."""

    as_stored = False


def _objects(batch: pa.RecordBatch, schema: pa.Schema | None) -> list[dict[str, Any]]:
    """Return the rows of a batch; with a schema, the columns are cast to the types of the schema."""
    if schema is None:
        return cast("list[dict[str, Any]]", batch.to_pylist())
    return cast("list[dict[str, Any]]", batch.cast(schema).to_pylist(maps_as_pydicts="strict"))


def _row(batch: pa.RecordBatch, schema: pa.Schema | None) -> tuple[bytes, str | None]:
    """Return the JSON text of the only row of a batch; if cells are invalid, the other cells and the reason."""
    import pyarrow as pa

    row, reason = dict[str, msgspec.Raw](), None
    for name in batch.schema.names:
        cell = batch.select([name])
        try:
            cell_schema = None if schema is None else pa.schema([schema.field(name)])
            row[name] = msgspec.Raw(encode(_objects(cell, cell_schema)[0][name]))
        except _CELL_ERRORS as error:
            reason = reason or f"column {name} cannot be written as JSON: {error}"
    return encode(row), reason


def _refuse_duplicates(schema: pa.Schema, uri: str) -> None:
    if repeated := [name for name, times in Counter(schema.names).items() if times > 1]:
        raise FatalError(
            f"{uri}: several columns are named {', '.join(repeated)}; rename them and upload the object again"
        )


def _storage_type(kind: pa.DataType) -> pa.DataType:
    """Return the type to which a column is cast, so that times become the stored numbers."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_date32(kind) or is_a.is_time32(kind):
        return pa.int32()
    if is_a.is_timestamp(kind) or is_a.is_time64(kind) or is_a.is_date64(kind) or is_a.is_duration(kind):
        return pa.int64()
    if is_a.is_list(kind) or is_a.is_large_list(kind):
        make = pa.list_ if is_a.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_storage_type(kind.value_type)))
    if is_a.is_struct(kind):
        return pa.struct([field.with_type(_storage_type(field.type)) for field in kind])
    if is_a.is_map(kind):
        return pa.map_(kind.key_type, kind.item_field.with_type(_storage_type(kind.item_type)))
    return kind
