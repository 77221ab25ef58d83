"""Staged records: copies of the records that one ingest writes, because sources may change while jobs run.

A file has the records of one shard in the order in which they were added, or the documents to delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Self

from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.key_index import column_keys
from opensearch_batch.core.ledger.parquet_files import NewParquetFile, StoredParquetFile
from opensearch_batch.core.ledger.partitions import Partitions
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa

# A row group is written when its records have this size or number.
GROUP_BYTES, GROUP_ROWS = 4 << 20, 1 << 16
# Maximum size of the records that `StagedShards` keeps in memory.
MEMORY_BYTES = 32 << 20
NO_KEY = bytes(KEY_BYTES)
_RECORD_COLUMNS = ("uri", "line", "offset", "record", "content_key", "reason")
_DELETION_COLUMNS = ("id", "routing", "version")


class StagedRecord(NamedTuple):
    """A record with its origin. `content_key` is None if the record needs no prediction.

    `reason` is why `ingest` found no prediction for the record, empty before that.
    """

    uri: str
    line: int
    offset: int
    record: bytes
    content_key: bytes | None
    reason: str = ""


class StagedDeletion(NamedTuple):
    """A document to delete; `version` is its version in the ledger."""

    id: str
    routing: str | None
    version: int


class StagedWriter:
    """Writes records to a file; uploads nothing if there are no records, or if the `with` block raises."""

    def __init__(self, objects: Objects, uri: str) -> None:
        self._objects = objects
        self._uri = uri
        compression = dict.fromkeys(("record", "uri", "offset", "line", "reason"), "zstd")
        self._file = NewParquetFile(_records_schema(), compression, repeated=("uri", "reason"))
        self._buffered: list[StagedRecord] = []
        self._buffered_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.close()

    def add(self, record: StagedRecord) -> None:
        """Add a record."""
        self._buffered.append(record)
        self._buffered_bytes += len(record.record)
        if self._buffered_bytes >= GROUP_BYTES or len(self._buffered) == GROUP_ROWS:
            self._write()

    def close(self) -> int:
        """Upload the file, and return the number of its records."""
        self._write()
        if self._file.rows:
            self._file.upload(self._objects, self._uri)
        return self._file.rows

    def add_table(self, records: pa.Table) -> None:
        """Add the records in a table that has the columns of the file."""
        self._write()
        self._file.write(records)

    def _write(self) -> None:
        if self._buffered:
            self._file.write(_table(self._buffered))
        self._buffered.clear()
        self._buffered_bytes = 0


class StagedShards:
    """Collects records of several shards, in any order, in memory and on disk; `write` writes one file per shard."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._schema = _records_schema().append(pa.field("shard", pa.uint32()))
        self._spooled = Partitions(self._schema, memory_bytes=MEMORY_BYTES)
        self._buffered: list[StagedRecord] = []
        self._shards: list[int] = []
        self._buffered_bytes = 0

    def add(self, shard: int, record: StagedRecord) -> None:
        """Add a record of a shard."""
        self._buffered.append(record)
        self._shards.append(shard)
        self._buffered_bytes += len(record.record)
        if self._buffered_bytes >= GROUP_BYTES or len(self._buffered) == GROUP_ROWS:
            self._spool()

    def write(self, objects: Objects, uris: Mapping[int, str]) -> None:
        """Write the files of these shards; discard the records of other shards."""
        import numpy as np
        import pyarrow as pa

        self._spool()
        # Only the files of one partition are open at the same time.
        for tables in self._spooled:
            with ExitStack() as stack:
                writers = dict[int, StagedWriter]()
                for table in tables:
                    shards = table["shard"].to_numpy()
                    for shard in uris.keys() & np.unique(shards).tolist():
                        if shard not in writers:
                            writers[shard] = stack.enter_context(StagedWriter(objects, uris[shard]))
                        records = table.filter(pa.array(shards == shard))
                        writers[shard].add_table(records.select(_records_schema().names))

    def _spool(self) -> None:
        import numpy as np
        import pyarrow as pa

        if self._buffered:
            shards = np.array(self._shards, np.uint32)
            table = _table(self._buffered).append_column(self._schema.field("shard"), pa.array(shards))
            self._spooled.add(table, shards)
        self._buffered.clear()
        self._shards.clear()
        self._buffered_bytes = 0


def _table(buffered: Sequence[StagedRecord]) -> pa.Table:
    import pyarrow as pa

    uris, lines, offsets, records, keys, reasons = zip(*buffered, strict=True)
    schema = _records_schema()
    columns = (uris, lines, offsets, records, keys, [reason or None for reason in reasons])
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def read_staged(objects: Objects, *files: str) -> Iterator[StagedRecord]:
    """Yield the records of files; raise FatalError if one is missing or damaged."""
    for columns in _row_groups(objects, files, _RECORD_COLUMNS):
        uris = columns[0].dictionary_encode()
        names = uris.dictionary.to_pylist()
        values = [[names[code] for code in uris.indices.to_pylist()], *(column.to_pylist() for column in columns[1:-1])]
        reasons = [reason or "" for reason in columns[-1].to_pylist()]
        yield from map(StagedRecord._make, zip(*values, reasons, strict=True))


def staged_keys(objects: Objects, *files: str) -> bytes:
    """Return the concatenated content keys of the records of files; `NO_KEY` for a record that has none.

    Raises:
        FatalError: a file is missing or damaged.
    """
    import pyarrow.compute as pc

    columns = (column for (column,) in _row_groups(objects, files, ("content_key",)))
    return b"".join(column_keys(pc.fill_null(column, NO_KEY)).tobytes() for column in columns)


def write_deletions(objects: Objects, uri: str, tables: Iterable[pa.Table]) -> int:
    """Write a file of documents to delete, unless there are none; return their number. Other columns are ignored."""
    file = NewParquetFile(_staged_deletions_schema(), "zstd", repeated=("routing",))
    for table in tables:
        if table.num_rows:
            file.write(table.select(_DELETION_COLUMNS).cast(_staged_deletions_schema()), group_rows=GROUP_ROWS)
    if file.rows:
        file.upload(objects, uri)
    return file.rows


def read_deletions(objects: Objects, uri: str) -> Iterator[StagedDeletion]:
    """Yield the documents to delete; raise FatalError if the file is missing or damaged."""
    for table in deletions_tables(objects, uri):
        yield from map(StagedDeletion._make, zip(*(column.to_pylist() for column in table.columns), strict=True))


def deletions_tables(objects: Objects, uri: str) -> Iterator[pa.Table]:
    """Yield the documents to delete as tables; raise FatalError if the file is missing or damaged."""
    import pyarrow as pa

    for columns in _row_groups(objects, [uri], _DELETION_COLUMNS):
        yield pa.Table.from_arrays(columns, schema=_staged_deletions_schema())


def _records_schema() -> pa.Schema:
    import pyarrow as pa

    types = (pa.string(), pa.uint32(), pa.int64(), pa.binary(), pa.binary(KEY_BYTES), pa.string())
    return pa.schema(list(zip(_RECORD_COLUMNS, types, strict=True)))


def _staged_deletions_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(list(zip(_DELETION_COLUMNS, (pa.string(), pa.string(), pa.int64()), strict=True)))


def _row_groups(objects: Objects, files: Iterable[str], columns: tuple[str, ...]) -> Iterator[list[pa.Array]]:
    """Yield columns of files, row group by row group."""
    for uri in files:
        file = StoredParquetFile(objects, uri, "the staged file is {}; clear prepare to stage it again")
        for group in range(len(file.group_rows)):
            yield file.read(*columns, group=group)
