"""Parquet files that one run writes and others read: damage is noticed, and the error names the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from opensearch_batch.core.errors import AnswersUnusable, ConfigError, FatalError
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Objects
from opensearch_batch.core.storage.temporary import Spool

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyarrow import parquet

# A file of this size or more is downloaded to disk instead of memory.
MEMORY_BYTES = 1 << 20
REMEDY = "its answers are paid for again when a run needs them"


@contextmanager
def upload(
    objects: Objects, uri: str, schema: pa.Schema, compression: Mapping[str, str], *, repeated: Sequence[str] = ()
) -> Iterator[Written]:
    """Yield the writer of a file, which is uploaded at the end if it has rows.

    Args:
        objects: the store.
        uri: where the file is written.
        schema: the columns.
        compression: the compression of columns; the others have none.
        repeated: columns that have few distinct values.
    """
    from pyarrow import parquet

    with Spool() as file:
        with parquet.ParquetWriter(
            file,
            schema,
            compression=dict(compression) or "none",
            use_dictionary=list(repeated) or False,
            write_statistics=False,
            write_page_checksum=True,
        ) as writer:
            written = Written(writer)
            yield written
        if written.rows:
            file.seek(0)
            objects.upload(uri, file)


class Written:
    """The writer of a file, and the number of its rows."""

    def __init__(self, writer: parquet.ParquetWriter) -> None:
        self._writer = writer
        self.rows = 0

    def write(self, table: pa.Table, *, group_rows: int | None = None) -> None:
        """Write a table, as one row group unless `group_rows` is less."""
        self._writer.write_table(table, row_group_size=group_rows or max(table.num_rows, 1))
        self.rows += table.num_rows


class StoreFile:
    """An open file of the prediction store.

    Raises:
        AnswersUnusable: the file is missing or damaged; `name` names it.
    """

    def __init__(self, objects: Objects, uri: str, name: str) -> None:
        from pyarrow import parquet

        self._uri, self._name = uri, name
        self._file = self._opened(objects)
        try:
            with self._damage():
                self._parquet = parquet.ParquetFile(self._file, page_checksum_verification=True)
        except FatalError:
            self._file.close()
            raise
        with self._damage():
            metadata = self._parquet.metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            self.group_rows: list[int] = [group.num_rows for group in groups]
            self.size_bytes = sum(group.total_byte_size for group in groups)

    def read(self, *columns: str, group: int | None = None) -> list[pa.Array]:
        """Return columns of a row group, or of the file."""
        names = list(columns)
        with self._damage():
            if group is None:
                table = self._parquet.read(columns=names, use_threads=False)
            else:
                table = self._parquet.read_row_group(group, columns=names, use_threads=False)
            return [table[name].combine_chunks() for name in names]

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        self._file.close()

    def unusable(self, reason: object) -> FatalError:
        """Return the error that names this file."""
        return AnswersUnusable(f"{self._uri}: {reason}; {REMEDY}", name=self._name)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise self.unusable(f"damaged ({error})") from error

    def _opened(self, objects: Objects) -> IO[bytes]:
        """Return a file that can be read from any position: a local one, or a temporary copy."""
        try:
            stream = objects.open(self._uri)
        except ConfigError:
            # Access may be denied, which is no loss.
            if objects.head(self._uri) is None:
                raise self.unusable("missing") from None
            raise
        if stream.seekable():
            return stream
        copy = Spool(MEMORY_BYTES)
        with stream:
            while chunk := stream.read(READ_BUFFER_BYTES):
                copy.write(chunk)
        copy.seek(0)
        return copy


def binary_values(column: pa.Array) -> tuple[memoryview, NDArray[np.int32]]:
    """Return the values of a binary column, one after the other, and the offsets between them."""
    import numpy as np

    _, offsets, values = column.buffers()
    start = column.offset
    return memoryview(values or b""), np.frombuffer(offsets, np.int32)[start : start + len(column) + 1]
