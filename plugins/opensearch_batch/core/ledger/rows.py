"""Rows of the record ledger: one for each record of a source object, in immutable files.

The name of a file is the time when it was written and the digest of its content. So a reader notices damage, and a new
file never reuses the name of one that another process may be deleting. A file holds the rows of one object, or of
several small ones, so that a source of many small objects has few files.
"""

from __future__ import annotations

import enum
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ledger.garbage import new_name
from opensearch_batch.core.ledger.parquet_files import DIGEST_BYTES, NewParquetFile, StoredParquetFile
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# The rows of small objects share a file until it has this many rows; it is also the number of rows of a row group.
PACK_ROWS = 1 << 16
LINE_BYTES = "line_bytes"
# Record hash of a document whose record is unknown. It equals the hash of no record.
UNKNOWN_HASH = bytes(DIGEST_BYTES)
# Digests are stored uncompressed, because compression does not make them smaller.
ROWS_COMPRESSION = dict.fromkeys(("id", "routing", "line", "version", "state", LINE_BYTES), "zstd")
_REMEDY = "run `opensearch-batch ledger rebuild`"


class RecordState(enum.IntEnum):
    """State of a record.

    A `duplicate` is not indexed, because another record with the same id wins; a `duplicate_tombstone` is a tombstone
    that loses to another record. A `tombstone` is a record that deletes its document. A `pending` record has no verdict
    yet. An `incomplete` record is a pending one whose document in the index lacks predictions; only the comparison
    uses this state, no file contains it.
    """

    INDEXED = 0
    DEAD = 1
    FILTERED = 2
    DUPLICATE = 3
    TOMBSTONE = 4
    PENDING = 5
    DUPLICATE_TOMBSTONE = 6
    INCOMPLETE = 7


# The states of records that have, or should have, a document. At most one record of an id has one of them.
DOCUMENT_STATES = (RecordState.INDEXED, RecordState.DEAD, RecordState.FILTERED, RecordState.PENDING)
LOSER_STATES = (RecordState.DUPLICATE, RecordState.DUPLICATE_TOMBSTONE)


class RowsSlice(msgspec.Struct, frozen=True, omit_defaults=True):
    """Location of the rows of one source object (file `rows`, from row `first`), and how many have each state."""

    rows: str
    first: int
    count: int
    states: dict[str, int] = {}

    @property
    def documents(self) -> int:
        """The number of rows whose record has, or should have, a document."""
        return sum(self.states.get(state.name.lower(), 0) for state in DOCUMENT_STATES)


def rows_schema() -> pa.Schema:
    """Return the columns of the ledger's rows.

    `id` is the document id as written, `line` the position of the record in its object (from 1), `version` the
    external version of the last write (0: never written), `record_hash` the digest of the record's bytes.
    `content_keys` are the keys of the record's predictions, none for a record that is never predicted. `line_bytes` is
    the size of the record's line in the input of a job, without the line break (0 for a record without content keys).
    """
    import pyarrow as pa

    digest = pa.binary(DIGEST_BYTES)
    return pa.schema(
        [
            ("id", pa.string()),
            ("routing", pa.string()),
            ("line", pa.uint32()),
            ("version", pa.int64()),
            ("record_hash", digest),
            ("content_keys", pa.list_(pa.field("element", digest))),
            ("state", pa.uint8()),
            (LINE_BYTES, pa.uint32()),
        ]
    )


def record_hash(record: bytes) -> bytes:
    """Return the digest of a record's bytes."""
    return hashlib.blake2b(record, digest_size=DIGEST_BYTES).digest()


def with_verdicts(rows: pa.Table, states: npt.NDArray[np.uint8], versions: npt.NDArray[np.int64]) -> pa.Table:
    """Return the rows with other states and versions."""
    import pyarrow as pa

    rows = rows.set_column(rows.schema.get_field_index("state"), "state", pa.array(states))
    return rows.set_column(rows.schema.get_field_index("version"), "version", pa.array(versions))


def are_any_of(states: npt.NDArray[np.uint8], some: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return for each state whether it is one of `some`."""
    import numpy as np

    is_one = np.zeros(1 << 8, bool)
    is_one[list(some)] = True
    mask: npt.NDArray[np.bool_] = is_one[states]
    return mask


def decided(
    rows: pa.Table,
    before: RecordState,
    verdicts: Iterable[tuple[int, int]],
    *,
    otherwise: RecordState,
    version: int,
) -> pa.Table:
    """Return rows with verdicts instead of the state `before`; the rows that become indexed get this version.

    A row in the state `before` gets the last verdict for its line, or `otherwise` if there is none.
    """
    import numpy as np

    lines, states = rows["line"].to_numpy(), rows["state"].to_numpy().copy()
    by_line = np.full(int(lines.max(initial=0)) + 1, otherwise, np.uint8)
    for line, state in verdicts:
        if line < len(by_line):
            by_line[line] = state
    has_verdict = states == before
    states[has_verdict] = by_line[lines[has_verdict]]
    versions = np.where(has_verdict & (states == RecordState.INDEXED), version, rows["version"].to_numpy())
    return with_verdicts(rows, states, versions)


def state_counts(states: npt.NDArray[np.uint8]) -> dict[str, int]:
    """Return how many rows have each state; states that no row has are left out."""
    import numpy as np

    counts = np.bincount(states, minlength=len(RecordState)).tolist()
    return {state.name.lower(): counts[state] for state in RecordState if counts[state]}


class RowsWriter:
    """Writes rows to files in a folder. A file is closed after the object with which it reaches `pack_rows` rows.

    A repeated write makes new files; garbage collection deletes the files that no head names.
    """

    def __init__(
        self,
        objects: Objects,
        folder: str,
        *,
        pack_rows: int = PACK_ROWS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._objects = objects
        self._clock = clock
        self._folder = folder.rstrip("/")
        self._pack_rows = pack_rows
        self._count = 0
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._file: NewParquetFile | None = None
        self._pack: dict[str, RowsSlice] = {}
        self._written: dict[str, RowsSlice] = {}

    def add(self, uri: str, rows: pa.Table) -> None:
        """Add rows of an object; all rows of an object are added one after the other."""
        if uri not in self._pack and self._count >= self._pack_rows:
            self._finish()
        earlier = self._pack.get(uri) or RowsSlice("", self._count, 0)
        states = Counter(earlier.states) + Counter(state_counts(rows["state"].to_numpy()))
        self._pack[uri] = RowsSlice("", earlier.first, earlier.count + rows.num_rows, dict(states))
        self._count += rows.num_rows
        self._waiting.append(rows.select(rows_schema().names).cast(rows_schema()))
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= PACK_ROWS:
            self._write()

    def close(self) -> dict[str, RowsSlice]:
        """Write the last file, and return where the rows of each object are."""
        if self._pack:
            self._finish()
        return self._written

    def _write(self) -> NewParquetFile:
        import pyarrow as pa

        self._file = self._file or NewParquetFile(rows_schema(), ROWS_COMPRESSION, ("routing", "version", "state"))
        if self._waiting:
            self._file.write(pa.concat_tables(self._waiting), group_rows=PACK_ROWS)
        self._waiting.clear()
        self._waiting_rows = 0
        return self._file

    def _finish(self) -> None:
        file = self._write()
        uri = f"{self._folder}/{new_name(file.digest(), now=self._clock())}.parquet"
        file.upload(self._objects, uri)
        for name, part in self._pack.items():
            self._written[name] = msgspec.structs.replace(part, rows=uri)
        self._pack.clear()
        self._count, self._file = 0, None


class RowsReader:
    """Reads the rows of objects. The last file and its last row group are kept, because small objects share them."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._file: StoredParquetFile | None = None
        self._group: tuple[int, tuple[str, ...]] | None = None
        self._rows: pa.Table | None = None

    def read(self, part: RowsSlice, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield the rows of an object, at most `PACK_ROWS` at a time; all columns, or only some.

        Raises:
            FatalError: the file of the rows is missing or damaged.
        """
        if not part.count:
            return
        names = tuple(columns or rows_schema().names)
        start, end = 0, part.first + part.count
        for number, size in enumerate(self._open(part.rows).group_rows):
            if start < end and start + size > part.first:
                first = max(part.first - start, 0)
                yield self._read_group(part.rows, number, names).slice(first, min(end - start, size) - first)
            start += size
        if start < end:
            raise FatalError(f"{part.rows}: this file of the record ledger has {start} rows, not {end}; {_REMEDY}")

    def _read_group(self, uri: str, number: int, columns: tuple[str, ...]) -> pa.Table:
        import pyarrow as pa

        file = self._open(uri)
        if self._group != (number, columns) or self._rows is None:
            stored = [name for name in columns if name in file.columns or name != LINE_BYTES]
            rows = pa.table(file.read(*stored, group=number), names=stored)
            if len(stored) < len(columns):
                # Files of earlier versions do not have the sizes.
                rows = rows.append_column(LINE_BYTES, pa.repeat(pa.scalar(0, pa.uint32()), rows.num_rows))
            self._rows, self._group = rows.select(list(columns)), (number, columns)
        return self._rows

    def _open(self, uri: str) -> StoredParquetFile:
        if self._file is None or uri != self._file.uri:
            error = f"this file of the record ledger is {{}}; {_REMEDY}"
            self._group, self._file = None, StoredParquetFile(self._objects, uri, error, named_by_digest=True)
        return self._file
