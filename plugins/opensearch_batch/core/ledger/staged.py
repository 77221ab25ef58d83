"""Staged records: what one ingest writes or deletes, copied by `prepare`, because sources change while jobs run.

A file has the records of one shard, in the order of the lines of its job if it has one, or documents to delete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Self

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.key_index import column_keys
from opensearch_batch.core.ledger.parquet_files import StoredParquetFile, upload
from opensearch_batch.core.ledger.partitions import SpooledTables
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES, GROUP_ROWS = 4 << 20, 1 << 16
# Of `StagedShards`: the bytes of records in memory, and the number of parts.
MEMORY_BYTES, PARTS = 32 << 20, 128
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

    def add_table(self, records: pa.Table) -> None:
        """Add records as a table with the columns of a file."""
        self._write()
        self._file.write(records)

    def _write(self) -> None:
        if self._waiting:
            self._file.write(_table(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0


class StagedShards:
    """Records of any number of shards in any order, on disk until `write` writes the file of each shard.

    Records are dealt into parts by the number of their shard; only the files of one part are open at the same time.
    """

    def __init__(self) -> None:
        import pyarrow as pa

        self._schema = _records_schema().append(pa.field("shard", pa.uint32()))
        self._spooled: dict[int, SpooledTables] = {}
        self._waiting: dict[int, list[StagedRecord]] = {}
        self._waiting_bytes = Counter[int]()

    def add(self, shard: int, record: StagedRecord) -> None:
        """Add a record of a shard."""
        waiting = self._waiting.setdefault(shard, [])
        waiting.append(record)
        self._waiting_bytes[shard] += len(record.record)
        if self._waiting_bytes[shard] >= GROUP_BYTES or len(waiting) == GROUP_ROWS:
            self._spool(shard)
        elif len(self._waiting) > MEMORY_BYTES // GROUP_BYTES and self._waiting_bytes.total() >= MEMORY_BYTES:
            self._spool(*self._waiting)

    def write(self, objects: Objects, uris: Mapping[int, str]) -> None:
        """Write the files of these shards; the records of other shards are discarded."""
        self._spool(*self._waiting)
        for part in self._spooled.values():
            with ExitStack() as stack:
                writers = dict[int, StagedWriter]()
                for table in part:
                    shard = table["shard"][0].as_py()
                    if shard in uris:
                        if shard not in writers:
                            writers[shard] = stack.enter_context(StagedWriter(objects, uris[shard]))
                        writers[shard].add_table(table.select(_records_schema().names))
        self.close()

    def close(self) -> None:
        """Discard all records."""
        for part in self._spooled.values():
            part.close()
        self._spooled.clear()

    def _spool(self, *shards: int) -> None:
        import pyarrow as pa

        for shard in shards:
            table = _table(self._waiting.pop(shard))
            del self._waiting_bytes[shard]
            numbers = pa.repeat(pa.scalar(shard, pa.uint32()), table.num_rows)
            part = self._spooled.setdefault(shard % PARTS, SpooledTables(self._schema, MEMORY_BYTES // PARTS))
            part.add(table.append_column(self._schema.field("shard"), numbers))


def _table(waiting: Sequence[StagedRecord]) -> pa.Table:
    import pyarrow as pa

    uris, lines, offsets, records, keys, reasons = zip(*waiting, strict=True)
    schema = _records_schema()
    columns = (uris, lines, offsets, records, keys, [reason or None for reason in reasons])
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


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

    columns = (column for (column,) in _groups(objects, uri, ("content_key",)))
    return b"".join(column_keys(pc.fill_null(column, NO_KEY)).tobytes() for column in columns)


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


def deletions_tables(objects: Objects, uri: str) -> Iterator[pa.Table]:
    """Yield the documents to delete as tables; none without a URI.

    Raises:
        FatalError: the file is missing or damaged.
    """
    import pyarrow as pa

    for columns in _groups(objects, uri, _DELETION_COLUMNS) if uri else ():
        yield pa.Table.from_arrays(columns, schema=_deletions_schema())


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
