"""Reads the objects of a source as rows of the record ledger: in one process, or a split in each of several tasks.

A task stores the rows of its split in a Parquet file, its dead letters, and then a document with the account of each
piece. The lines of a piece are counted from its start; the reader of the files adds the lines of the pieces before it.
"""

from __future__ import annotations

import secrets
from bisect import bisect
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import ConfigError, ObjectChanged, RetriableError
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.ledger.parquet_files import NewParquetFile, StoredParquetFile
from opensearch_batch.core.ledger.rows import PACK_ROWS, ROWS_COMPRESSION, rows_schema
from opensearch_batch.core.runs.prepare_options import PreparePlan
from opensearch_batch.core.sharding.document_ids import document_ids
from opensearch_batch.core.sharding.passthrough import check_input_object
from opensearch_batch.core.sharding.record_reader import RecordReader, in_large_tables
from opensearch_batch.core.sharding.splits import Piece, Split
from opensearch_batch.core.storage.dead_letters import DeadLetters, list_parts, read_letters
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa


class PieceAccount(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counts of a piece: its `lines`, those that are `blank`, `read` or `rejected` (dead letters), and its `rows`.

    `unreadable` are the objects with dead letters whose id is not known. `is_changed`: the object changed after it was
    listed and before it was read, so it is left to the next run.
    """

    rows: int = 0
    lines: int = 0
    read: int = 0
    rejected: int = 0
    blank: int = 0
    unreadable: list[str] = []
    is_changed: bool = False


def record_reader(plan: PreparePlan, adapter: ServiceAdapter, dead: DeadLetters) -> RecordReader:
    """Return the reader of the records of a run."""
    return RecordReader(
        adapter,
        plan.manifest.parameters,
        plan.manifest.inputs,
        ids=document_ids(plan.request, adapter),
        deleted=plan.options.deleted,
        limit=plan.limits(adapter).row_limit,
        source_format=plan.options.source_format,
        dead=dead,
    )


class SourceReading:
    """What was read of the source: counts, and the pieces in the order of the reading.

    Attributes:
        accounts: the pieces, with the number of lines before each, and their accounts.
        read, rejected, blank, unreadable: as in `PieceAccount`, of all pieces.
        changed: the objects that changed before they were read.
        pieces: the pieces of each other object.
    """

    def __init__(self) -> None:
        self.accounts: list[tuple[Piece, PieceAccount]] = []
        self.read = self.rejected = self.blank = 0
        self.unreadable = dict[str, None]()
        self.changed = dict[str, None]()
        self.pieces = dict[str, list[Piece]]()

    def add(self, piece: Piece, account: PieceAccount) -> None:
        """Add a piece."""
        self.accounts.append((piece, account))
        self.read += account.read
        self.rejected += account.rejected
        self.blank += account.blank
        self.unreadable |= dict.fromkeys(account.unreadable)
        if account.is_changed:
            self.changed[piece.item.uri] = None
        else:
            self.pieces.setdefault(piece.item.uri, []).append(piece)


class PiecesReader:
    """Reads pieces in this process, one after the other; the account of each is added to `reading` when it was read."""

    def __init__(
        self, objects: Objects, plan: PreparePlan, adapter: ServiceAdapter, dead: DeadLetters, reading: SourceReading
    ) -> None:
        self.reading = reading
        self._objects = objects
        self._reader = record_reader(plan, adapter, dead)
        self._dead = dead
        self._limits = plan.limits(adapter)
        self._options = plan.options

    def rows(self, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, pa.Table]]:
        """Yield the rows of pieces until there are enough records; raise RetriableError if one changes meanwhile."""
        reader, limit = self._reader, self._options.limit
        for piece in pieces:
            before, rows = (reader.lines, reader.read, reader.rejected, reader.blank), 0
            known = len(reader.unreadable)
            left = None if limit is None else limit - (reader.read - reader.rejected)
            if left is not None and left <= 0:
                return
            try:
                for table in reader.tables(self._objects, piece, at_most=left):
                    yield piece, table
                    rows += table.num_rows
            except (ObjectChanged, ConfigError) as error:
                # Access may be denied, which is no change.
                if isinstance(error, ConfigError) and self._objects.head(piece.item.uri) is not None:
                    raise
                if reader.read != before[1]:
                    raise RetriableError(str(error)) from error
                self.reading.add(piece, PieceAccount(is_changed=True))
                continue
            lines, read, rejected, blank = before
            account = PieceAccount(
                rows,
                reader.lines - lines,
                reader.read - read,
                reader.rejected - rejected,
                reader.blank - blank,
                list(reader.unreadable)[known:],
            )
            if self._options.passthrough:
                check_input_object(piece.item, reader, self._dead, records=account.read, limits=self._limits)
            self.reading.add(piece, account)


class StoredSplit(msgspec.Struct, frozen=True):
    """A split that was read: its pieces with their accounts, the file with their rows, the prefix of dead letters."""

    pieces: list[tuple[Piece, PieceAccount]]
    rows: str
    letters: str


class SplitFiles:
    """The files of one split below a folder."""

    def __init__(self, objects: Objects, folder: str, number: int) -> None:
        self._objects = objects
        self._stem = f"{folder}/read-{number:05d}"
        self._account = JsonDocument(objects, f"{self._stem}.json", StoredSplit, indent=-1)

    def write(self, pieces: Split, plan: PreparePlan, adapter: ServiceAdapter) -> None:
        """Read a split, and store its rows, its dead letters, and then its account."""
        # A late attempt of a task replaces no file of another one.
        stem = f"{self._stem}-{secrets.token_hex(4)}"
        reading, rows, letters = SourceReading(), f"{stem}.parquet", f"{stem}/"
        file = NewParquetFile(rows_schema(), ROWS_COMPRESSION, ("routing", "version", "state"))
        with DeadLetters(self._objects, letters) as dead:
            tables = (table for _, table in PiecesReader(self._objects, plan, adapter, dead, reading).rows(pieces))
            for table in in_large_tables(tables, PACK_ROWS):
                file.write(table.cast(rows_schema()), group_rows=PACK_ROWS)
            dead.write()
        file.upload(self._objects, rows)
        self._account.write(StoredSplit(reading.accounts, rows, letters))

    def load(self) -> StoredSplit | None:
        """Return the split, None if it was not read."""
        return self._account.read()


def _rows_of(objects: Objects, split: StoredSplit) -> Iterator[tuple[Piece, pa.Table]]:
    """Yield the rows of the pieces that did not change, each piece at least once."""
    pieces = [(piece, account.rows) for piece, account in split.pieces if not account.is_changed]
    tables = _tables(objects, split, [count for _, count in pieces])
    for piece, _ in pieces:
        for table in in_large_tables(next(tables)):
            yield piece, table


def _tables(objects: Objects, split: StoredSplit, counts: Sequence[int]) -> Iterator[list[pa.Table]]:
    """Yield the rows of a split in parts of these lengths."""
    import pyarrow as pa

    file = StoredParquetFile(objects, split.rows, "the rows of this split are {}; clear the task read of this run")
    names = rows_schema().names
    groups, rest = iter(range(len(file.group_rows))), rows_schema().empty_table()
    for count in counts:
        tables, left = list[pa.Table](), count
        while left > rest.num_rows:
            tables.append(rest)
            left -= rest.num_rows
            rest = pa.table(file.read(*names, group=next(groups)), names=names)
        yield [*tables, rest.slice(0, left)]
        rest = rest.slice(left)


def stored_rows(
    objects: Objects,
    splits: Sequence[StoredSplit],
    wanted: Collection[str],
    reading: SourceReading,
    dead: DeadLetters,
) -> Iterator[tuple[Piece, pa.Table]]:
    """Yield the rows of the `wanted` objects of splits that were read, with the lines of whole objects.

    Their accounts are added to `reading`, and their dead letters to `dead`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    pieces = [each for split in splits for each in split.pieces]
    changed = {piece.item.uri for piece, account in pieces if account.is_changed}
    reading.changed |= dict.fromkeys(sorted(changed.intersection(wanted)))
    # The start of each range of an object, and the number of lines before it.
    starts, lines = dict[str, list[int]](), dict[str, list[int]]()
    for piece, account in pieces:
        uri = piece.item.uri
        starts.setdefault(uri, []).append(piece.start)
        lines.setdefault(uri, [0]).append(lines[uri][-1] + account.lines)
    for split in splits:
        for piece, account in split.pieces:
            uri = piece.item.uri
            if uri in wanted and uri not in changed:
                before = lines[uri][starts[uri].index(piece.start)]
                reading.add(msgspec.structs.replace(piece, lines_before=before), account)
        for piece, table in _rows_of(objects, split):
            uri = piece.item.uri
            if uri in wanted and uri not in changed:
                before = lines[uri][starts[uri].index(piece.start)]
                line = pc.add(table["line"], pa.scalar(before, pa.uint32()))
                yield piece, table.set_column(table.schema.get_field_index("line"), "line", line)
        parts = list_parts(objects, split.letters)
        for letter in chain.from_iterable(read_letters(objects, part) for part in parts):
            uri = letter.source
            if uri in changed or (uri in starts and uri not in wanted):
                continue
            before = lines[uri][bisect(starts[uri], letter.offset) - 1] if uri in starts else 0
            dead.add(msgspec.structs.replace(letter, line=letter.line + before))
