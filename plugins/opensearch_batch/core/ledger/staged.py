"""Staged records: what one ingest writes or deletes, copied by `prepare`, because sources change while jobs run.

A file has the records of one shard, in the order of the lines of its job if it has one, or documents to delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Self

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.parquet_files import StoredParquetFile, upload
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES, GROUP_ROWS = 4 << 20, 1 << 16
NO_KEY = bytes(KEY_BYTES)
_RECORD_COLUMNS = ("uri", "line", "offset", "record", "content_key", "reason")
_DELETION_COLUMNS = ("id", "routing", "version")


class StagedRecord(NamedTuple):
    """A record with its origin and content key (None: no prediction); `reason`: why the service has no answer."""

    uri: str
    line: int
    offset: int
    record: bytes
    content_key: bytes | None
    reason: str = ""


class StagedDeletion(NamedTuple):
    """A document to delete; `version` is the version that the ledger has of it."""

    id: str
    routing: str | None
    version: int


class StagedWriter:
    """Writes a file of records; nothing is written without records, or if the `with` block raises."""

    def __init__(self, objects: Objects, uri: str) -> None:
        self._stack = ExitStack()
        compression = {"record": "zstd", "uri": "zstd", "offset": "zstd", "line": "zstd", "reason": "zstd"}
        self._file = self._stack.enter_context(
            upload(objects, uri, _records_schema(), compression, repeated=("uri", "reason"))
        )
        self._waiting: list[StagedRecord] = []
        self._waiting_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.close()
        else:
            self._stack.__exit__(*error)  # type: ignore[arg-type] # object is what the interpreter passes

    def add(self, record: StagedRecord) -> None:
        """Add a record."""
        self._waiting.append(record)
        self._waiting_bytes += len(record.record)
        if self._waiting_bytes >= GROUP_BYTES or len(self._waiting) == GROUP_ROWS:
            self._write()

    def close(self) -> int:
        """Write the file, and return the number of its records."""
        self._write()
        self._stack.close()
        return self._file.rows

    def _write(self) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        uris, lines, offsets, records, keys, reasons = zip(*self._waiting, strict=True)
        schema = _records_schema()
        columns = (uris, lines, offsets, records, keys, [reason or None for reason in reasons])
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        self._file.write(pa.Table.from_arrays(arrays, schema=schema))
        self._waiting.clear()
        self._waiting_bytes = 0


def read_staged(objects: Objects, uri: str) -> Iterator[StagedRecord]:
    """Yield the records of a file.

    Raises:
        FatalError: the file is missing or damaged.
    """
    for columns in _groups(objects, uri, _RECORD_COLUMNS):
        uris = columns[0].dictionary_encode()
        names = uris.dictionary.to_pylist()
        values = [[names[code] for code in uris.indices.to_pylist()], *(column.to_pylist() for column in columns[1:-1])]
        reasons = [reason or "" for reason in columns[-1].to_pylist()]
        yield from map(StagedRecord._make, zip(*values, reasons, strict=True))


def staged_keys(objects: Objects, uri: str) -> bytes:
    """Return the content keys of the records of a file, one after the other; `NO_KEY` for a record that has none.

    Raises:
        FatalError: the file is missing or damaged.
    """
    import pyarrow.compute as pc

    keys = []
    for (column,) in _groups(objects, uri, ("content_key",)):
        filled = pc.fill_null(column, NO_KEY)
        keys.append(filled.buffers()[1].to_pybytes()[filled.offset * KEY_BYTES :][: len(filled) * KEY_BYTES])
    return b"".join(keys)


def write_deletions(objects: Objects, uri: str, tables: Iterable[pa.Table]) -> int:
    """Write documents to delete, given as tables of `deletions_schema`; return their number; 0 writes no file."""
    schema = _deletions_schema()
    with upload(objects, uri, schema, dict.fromkeys(_DELETION_COLUMNS, "zstd"), repeated=("routing",)) as file:
        for table in tables:
            if table.num_rows:
                file.write(table.select(schema.names).cast(schema), group_rows=GROUP_ROWS)
    return file.rows


def read_deletions(objects: Objects, uri: str) -> Iterator[StagedDeletion]:
    """Yield the documents to delete.

    Raises:
        FatalError: the file is missing or damaged.
    """
    for columns in _groups(objects, uri, _DELETION_COLUMNS):
        yield from map(StagedDeletion._make, zip(*(column.to_pylist() for column in columns), strict=True))


def _records_schema() -> pa.Schema:
    import pyarrow as pa

    kinds = (pa.string(), pa.uint32(), pa.int64(), pa.binary(), pa.binary(KEY_BYTES), pa.string())
    return pa.schema(list(zip(_RECORD_COLUMNS, kinds, strict=True)))


def _deletions_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(list(zip(_DELETION_COLUMNS, (pa.string(), pa.string(), pa.int64()), strict=True)))


def _groups(objects: Objects, uri: str, columns: tuple[str, ...]) -> Iterator[list[pa.Array]]:
    """Yield columns of a file, row group by row group."""
    file = _StagedFile(objects, uri)
    try:
        for group in range(len(file.group_rows)):
            yield file.read(*columns, group=group)
    finally:
        file.close()


class _StagedFile(StoredParquetFile):
    """An open file of staged records."""

    def unusable(self, reason: object) -> FatalError:
        """Return the error that names this file."""
        return FatalError(f"{self.uri}: the staged records are {reason}; clear prepare to stage them again")
