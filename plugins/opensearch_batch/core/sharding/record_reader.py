"""Reads the records of source objects, as rows of the record ledger or as they are.

Regular JSON Lines, which hold one complete record each, are read in blocks. A block with an irregular line is halved,
so that only a few lines around the irregular one are read one by one. All other rows are read one by one, with the same
result. A row that is not a record becomes a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.any_json import AnyJson, layout_of
from opensearch_batch.core.formats.dead_letter_rows import DeadLetterRows
from opensearch_batch.core.formats.jsonl import JsonLines
from opensearch_batch.core.formats.reading import format_of, reader
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.ledger.content_keys import key_of_content
from opensearch_batch.core.ledger.rows import PACK_ROWS, RecordState
from opensearch_batch.core.ledger.rows_builder import RowsBuilder
from opensearch_batch.core.sharding.block_rows import BlockRows
from opensearch_batch.core.sharding.document_ids import DeletedWhen, DocumentIds, ids_reader
from opensearch_batch.core.sharding.incomplete import is_incomplete, without_mark
from opensearch_batch.core.sharding.json_blocks import LinesBlock, json_blocks
from opensearch_batch.core.sharding.splits import Piece
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter
from opensearch_batch.core.storage.line_range import open_lines
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.rows import Blank, Rejected, Row, RowLimit, Source, SourceEntry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# A block of at most this many lines is not halved.
MIN_LINES = 32
# An object with more records is yielded in several tables.
TABLE_ROWS = 1 << 20


class RecordReader:
    """Reads objects. `read`, `rejected` and `blank` count the lines, the dead letters and the empty lines so far.

    `unreadable` are the objects with dead letters whose id is not known. `lines` counts the lines of JSON Lines.
    """

    def __init__(
        self,
        adapter: ServiceAdapter,
        parameters: Mapping[str, Any],
        inputs: Sequence[str],
        *,
        ids: DocumentIds,
        deleted: DeletedWhen | None = None,
        limit: RowLimit,
        source_format: Format | None = None,
        dead: DeadLetters,
    ) -> None:
        self.read = self.rejected = self.blank = self.lines = 0
        self.unreadable: dict[str, None] = {}
        self._ids = ids
        self._read_ids = ids_reader(ids)
        self._is_deleted = None if deleted is None else deleted.reader()
        self._content_of = adapter.content_reader(parameters, inputs)
        self._key_of = key_of_content(adapter, parameters)
        self._line_bytes = adapter.line_bytes(parameters, inputs)
        self._block_rows = BlockRows.of(adapter, parameters, inputs, ids, deleted)
        self._limit = limit
        self._format = source_format
        self._dead = dead
        self._builder = RowsBuilder()

    def tables(self, objects: Objects, piece: Piece, *, at_most: int | None = None) -> Iterator[pa.Table]:
        """Yield the rows of an object, or of a part of it, as one table unless there are more than `TABLE_ROWS` rows.

        Args:
            objects: the store.
            piece: the object.
            at_most: the maximum number of records to read.

        Raises:
            ObjectChanged: the object changed since it was listed.
        """
        return in_large_tables(self._small_tables(objects, piece, at_most))

    def records(self, objects: Objects, piece: Piece, lines: npt.NDArray[np.uint32]) -> Iterator[Row]:
        """Yield the records of an object in these lines of its ledger rows, which are in ascending order.

        Raises:
            ObjectChanged: the object changed since it was listed.
        """
        import numpy as np

        uri, following = piece.item.uri, _numbers(lines)
        wanted = next(following, None)
        for number, entry in self._entries(objects, piece):
            if isinstance(entry, LinesBlock):
                first, last = np.searchsorted(lines, (entry.line, entry.line + entry.count)).tolist()
                if first < last:
                    yield from _rows_of(uri, entry, lines[first:last].tolist())
                    following = _numbers(lines[last:])
                    wanted = next(following, None)
            elif number == wanted and isinstance(entry, Row):
                is_marked = is_incomplete(entry.uri, entry.content)
                yield replace(entry, content=without_mark(entry.uri, entry.content)) if is_marked else entry
                wanted = next(following, None)

    def _small_tables(self, objects: Objects, piece: Piece, at_most: int | None) -> Iterator[pa.Table]:
        """Yield at least one table."""
        last, left = 0, at_most
        for number, entry in self._entries(objects, piece, in_blocks=at_most is None):
            if isinstance(entry, LinesBlock):
                yield from self._block(piece.item.uri, entry)
                continue
            if left == 0:
                break
            accepted = self._add(entry, number, is_distinct=number > last)
            last = max(number, last)
            left = None if left is None else left - accepted
            if len(self._builder) >= PACK_ROWS:
                yield self._builder.table()
        yield self._builder.table()

    def _entries(
        self, objects: Objects, piece: Piece, *, in_blocks: bool = True
    ) -> Iterator[tuple[int, SourceEntry | LinesBlock]]:
        """Yield entries with the numbers of their lines in the ledger."""
        item, is_range = piece.item, piece.is_range
        row_format, in_blocks = format_of(item.uri, self._format), in_blocks and self._block_rows is not None
        if is_range or (in_blocks and isinstance(row_format, AnyJson | JsonLines)):
            stream, offset = open_lines(objects, item, piece.start, piece.end)
            with stream:
                if is_range or isinstance(row_format, JsonLines) or layout_of(stream) == "lines":
                    first = piece.lines_before + 1
                    for block in json_blocks(stream, item.uri, self._limit, line=first, offset=offset):
                        self.lines += block.count if isinstance(block, LinesBlock) else 1
                        yield _line_of(block), block
                    return
        # Dead letters have the lines of their own origins.
        has_lines = not isinstance(row_format, DeadLetterRows)
        entries = reader(row_format, limit=self._limit)(objects, 0, Source(item.uri, (item,)))
        for number, entry in enumerate(entries, 1):
            yield _line_of(entry) if has_lines else number, entry

    def _block(self, uri: str, block: LinesBlock) -> Iterator[pa.Table]:
        table = None if self._block_rows is None else self._block_rows.table(uri, block, self._limit.max_bytes)
        if table is not None:
            if len(self._builder):
                yield self._builder.table()
            yield table
            self.read += block.count
        elif block.count > MIN_LINES:
            for half in block.halves():
                yield from self._block(uri, half)
        else:
            for entry in block.entries(uri, self._limit):
                self._add(entry, _line_of(entry))

    def _add(self, entry: SourceEntry, number: int, *, is_distinct: bool = True) -> bool:
        """Add an entry; return whether it is a record."""
        if isinstance(entry, Blank):
            self.blank += 1
            return False
        self.read += 1
        if isinstance(entry, Rejected):
            return self._reject(entry.rows[0], entry.reason, has_id=False)
        if not is_distinct:
            reason = "another record starts in the same line; write each record in a line of its own"
            return self._reject(entry, reason, has_id=False)
        record, state, rejection = without_mark(entry.uri, entry.content), RecordState.PENDING, ""
        keys, line_bytes = list[bytes](), 0
        try:
            record_id, routing = self._read_ids(record, entry.uri, entry.line)
            try:
                if self._is_deleted is not None and self._is_deleted(record):
                    state = RecordState.TOMBSTONE
                else:
                    content = self._content_of(record)
                    keys.append(self._key_of(content))
                    line_bytes = self._line_bytes(record, content)
                    state = RecordState.INCOMPLETE if is_incomplete(entry.uri, entry.content) else state
            except RecordRejected as error:
                if self._ids.id_path is None:
                    raise
                # Its document is not absent from the source.
                state, rejection = RecordState.DEAD, str(error)
            self._builder.add(record_id, record, keys, line=number, routing=routing, state=state, line_bytes=line_bytes)
        except RecordRejected as error:
            return self._reject(entry, str(error), has_id=False)
        return self._reject(entry, rejection) if rejection else True

    def _reject(self, record: Row, reason: str, *, has_id: bool = True) -> bool:
        self.rejected += 1
        if not has_id:
            self.unreadable[record.uri] = None
        letter = dead_letter(
            record.content, stage="prepare", reason=reason, source=record.uri, line=record.line, offset=record.offset
        )
        self._dead.add(letter)
        return False


def in_large_tables(tables: Iterable[pa.Table], at_least: int | None = None) -> Iterator[pa.Table]:
    """Yield the rows in tables of at least `at_least` rows, by default `TABLE_ROWS`; the last one may have fewer."""
    import pyarrow as pa

    waiting, rows, is_empty = list[pa.Table](), 0, True
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        if rows >= (at_least or TABLE_ROWS):
            yield pa.concat_tables(waiting)
            waiting, rows, is_empty = [], 0, False
    if waiting and (is_empty or rows):
        yield pa.concat_tables(waiting)


def _line_of(entry: SourceEntry | LinesBlock) -> int:
    if isinstance(entry, Row | LinesBlock):
        return entry.line
    return entry.rows[0].line if isinstance(entry, Rejected) else 0


def _numbers(lines: npt.NDArray[np.uint32]) -> Iterator[int]:
    """Yield numbers; only some of them are converted at once."""
    for start in range(0, len(lines), PACK_ROWS):
        yield from lines[start : start + PACK_ROWS].tolist()


def _rows_of(uri: str, block: LinesBlock, lines: Sequence[int]) -> Iterator[Row]:
    """Yield the records in some lines of a block."""
    records = block.records()
    offsets = list(accumulate((len(record) + 1 for record in records), initial=block.offset))
    for line in lines:
        at = line - block.line
        yield Row(0, uri, line, offsets[at], without_mark(uri, records[at].removesuffix(b"\r")))
