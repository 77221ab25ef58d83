"""Diff of a source and the record ledger: the class of each record, and the deletions.

Of several records with one id, the last one wins, in the order of the objects and in the order of their records. So
the documents that should be in the index depend on the source only, not on the order of the runs. Objects are ordered
by their URI in a snapshot, and by the time of their last change in append mode.

1. All rows of objects that changed are candidates, both those that were read and those of the ledger, except records
   that equal the ledger's row in the same position of their object.
2. A table of id hashes finds all other rows that have the id of a candidate; these are candidates, too.
3. The candidates are partitioned by id. In each partition, the winner of an id is compared with the row that won
   before, so a move between objects is no change.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING, NamedTuple

from opensearch_batch.core.ledger.classes import DiffCounts, are_rejected, lost_predictions, same_lists, same_values
from opensearch_batch.core.ledger.difference import Difference, NumberedObject, ReadRows
from opensearch_batch.core.ledger.head import Entry, in_file_order
from opensearch_batch.core.ledger.partitions import Partitions, SpooledTables
from opensearch_batch.core.ledger.resolve import Mode, Resolver, RowKind, RowNumbers, candidates_schema
from opensearch_batch.core.ledger.rows import (
    DOCUMENT_STATES,
    LOSER_STATES,
    RecordState,
    are_any_of,
    rows_schema,
    with_verdicts,
)
from opensearch_batch.core.types.object_info import ObjectInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

MEMORY_BYTES = 32 << 20
_HASH_BITS = 24
_MASK = (1 << _HASH_BITS) - 1


class ListedChanges(NamedTuple):
    """The objects of a listing that changed, and those of the ledger that are not listed any more."""

    changed: list[ObjectInfo]
    vanished: list[str]


def listed_changes(entries: Mapping[str, Entry], listed: Iterable[ObjectInfo], mode: Mode) -> ListedChanges:
    """Compare a listing with the ledger. In append mode, and if nothing is listed, no object counts as vanished."""
    by_uri = {item.uri: item for item in listed}
    changed = [item for uri, item in by_uri.items() if uri not in entries or entries[uri].etag != item.etag]
    can_vanish = mode == "snapshot" and by_uri
    return ListedChanges(changed, sorted(entries.keys() - by_uri.keys()) if can_vanish else [])


def diff(
    new: Iterable[tuple[ObjectInfo, pa.Table]],
    entries: Mapping[str, Entry],
    read_rows: ReadRows,
    *,
    mode: Mode,
    vanished: Collection[str] = (),
    unreadable: Container[str] = frozenset(),
    memory_bytes: int = MEMORY_BYTES,
) -> Difference:
    """Compare the records of objects that changed with the ledger.

    `new` has the records of each object in one or more consecutive parts. `entries` are the objects of the ledger;
    `read_rows` reads their rows. The `vanished` ones no longer exist. The `unreadable` ones, which may be added while
    `new` yields their parts, have rows without a known id: a record that is absent there may be one of these rows, so
    it does not count as removed.
    """
    state = _Diff(entries, read_rows, mode, unreadable, memory_bytes)
    for uri, parts in groupby(new, key=lambda part: part[0].uri):
        state.add_object(uri, parts)
    for uri in vanished:
        state.remove_object(uri)
    return state.result()


class _Diff:
    """Collects the candidates, and resolves them."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        read_rows: ReadRows,
        mode: Mode,
        unreadable: Container[str],
        memory_bytes: int,
    ) -> None:
        import numpy as np

        self._counts = DiffCounts(before=sum(entry.documents for entry in entries.values()))
        self._unread = dict(entries)
        self._read_rows = read_rows
        self._mode = mode
        self._unreadable = unreadable
        self._numbers = RowNumbers()
        self._opened: list[NumberedObject] = []
        self._tables = SpooledTables(rows_schema())
        self._candidates = Partitions(candidates_schema(), memory_bytes=memory_bytes)
        # Which records equal the ledger's row in the same position, by the number of the first record of their table.
        self._equal_rows: dict[int, npt.NDArray[np.bool_]] = {}
        self._marked: npt.NDArray[np.bool_] = np.zeros(1 << _HASH_BITS, bool)

    def add_object(self, uri: str, parts: Iterator[tuple[ObjectInfo, pa.Table]]) -> None:
        """Add the records of an object that was read, and its rows in the ledger."""
        info, first = next(parts)
        entry = self._unread.pop(uri, None)
        item = self._numbered(uri, entry, info.modified)
        self._opened.append(item)
        second, equal = next(parts, None), None
        old: Iterable[tuple[int, pa.Table]] = item.ledger_rows(self._read_rows)
        if entry is not None and entry.count == first.num_rows and second is None and not entry.stale:
            old = list(old)
            # If its object is older than before, a record may have lost its precedence.
            if self._mode == "snapshot" or info.modified >= entry.modified:
                first, equal = _equal_rows(first, [table for _, table in old])
        self._add_part(item, first, equal)
        for _, table in chain(() if second is None else (second,), parts):
            self._add_part(item, table, None)
        # Now that all its rows were read, it is known whether some are unreadable.
        self._add_ledger_rows(item, old, equal)

    def remove_object(self, uri: str) -> None:
        """Add the ledger's rows of an object that no longer exists."""
        entry = self._unread.pop(uri)
        item = self._numbered(uri, entry, entry.modified)
        self._add_ledger_rows(item, item.ledger_rows(self._read_rows), None)

    def result(self) -> Difference:
        """Find the other rows with the ids of the candidates, and resolve all candidates."""
        import pyarrow as pa

        self._counts.kept += sum(entry.documents for entry in self._unread.values())
        unopened = [self._numbered(uri, entry, entry.modified) for uri, entry in in_file_order(self._unread)]
        self._add_marked_equal_rows()
        if self._marked.any():
            for item in unopened:
                self._add_marked_rows(item)
        self._numbers.freeze(self._mode)
        resolver = Resolver(self._numbers, self._counts)
        for tables in self._candidates:
            resolver.resolve(pa.concat_tables([candidates_schema().empty_table(), *tables]).combine_chunks())
        return Difference(self._counts, self._opened, self._tables, unopened, self._read_rows, resolver)

    def _numbered(self, uri: str, entry: Entry | None, modified: float) -> NumberedObject:
        """Number an object, and its rows in the ledger."""
        self._numbers.add_object(uri, modified, stale=entry is not None and entry.stale)
        return NumberedObject(uri, entry, self._numbers.add_rows(0 if entry is None else entry.count), [])

    def _add_ledger_rows(
        self, item: NumberedObject, old: Iterable[tuple[int, pa.Table]], equal: npt.NDArray[np.bool_] | None
    ) -> None:
        """Add the ledger's rows that won, and whose records may have left the object."""
        import numpy as np

        for number, table in old:
            states = table["state"].to_numpy()
            kinds = np.full(len(states), RowKind.PREVIOUS, np.uint8)
            if self._mode == "append":
                # A pending row that was never written has no known document, so it is not retained.
                kinds[(states != RecordState.PENDING) | (table["version"].to_numpy() > 0)] = RowKind.LEFT
            elif item.uri in self._unreadable:
                kinds[are_any_of(states, DOCUMENT_STATES)] = RowKind.LEFT
            won = ~are_any_of(states, LOSER_STATES)
            if equal is not None:
                won &= ~equal[number - item.first : number - item.first + len(states)]
            self._mark(self._add_candidates(table, won, kinds, number))

    def _add_part(self, item: NumberedObject, rows: pa.Table, equal: npt.NDArray[np.bool_] | None) -> None:
        """Add records that were read, except those that equal the ledger's row in the same position."""
        import numpy as np

        count = rows.num_rows
        number = self._numbers.add_rows(count)
        item.parts.append((number, count))
        self._tables.add(rows)
        if equal is not None and count:
            self._equal_rows[number] = equal
        chosen = np.ones(count, bool) if equal is None else ~equal
        self._mark(self._add_candidates(rows, chosen, np.full(count, RowKind.READ, np.uint8), number))

    def _add_marked_equal_rows(self) -> None:
        """Add the records excluded by `_add_part` that have the id of another candidate; count the others."""
        import numpy as np

        numbers = (number for item in self._opened for number, count in item.parts if count)
        for number, table in zip(numbers, self._tables if self._equal_rows else (), strict=False):
            if (equal := self._equal_rows.get(number)) is None:
                continue
            states, has_marked_id = table["state"].to_numpy(), equal & self._is_marked(table)
            others = equal & ~has_marked_id
            self._counts.unchanged += int((others & ~are_rejected(table)).sum())
            self._counts.kept += int((others & are_any_of(states, DOCUMENT_STATES)).sum())
            self._add_candidates(table, has_marked_id, np.full(len(has_marked_id), RowKind.PREVIOUS, np.uint8), number)
            read = np.where(states == RecordState.TOMBSTONE, states, RecordState.PENDING).astype(np.uint8)
            new = with_verdicts(table, read, np.zeros(len(has_marked_id), np.int64))
            self._add_candidates(new, has_marked_id, np.full(len(has_marked_id), RowKind.READ, np.uint8), number)

    def _add_marked_rows(self, item: NumberedObject) -> None:
        """Add the rows of an unchanged object that have the id of another candidate."""
        import numpy as np

        if item.entry is None or not any(
            self._is_marked(table).any() for table in self._read_rows(item.entry, ("id",))
        ):
            return
        for number, table in item.ledger_rows(self._read_rows):
            is_loser = are_any_of(table["state"].to_numpy(), LOSER_STATES)
            # A duplicate with line 0 has left its object, so it has no record that could win.
            has_marked_id = self._is_marked(table) & ~(is_loser & (table["line"].to_numpy() == 0))
            self._add_candidates(
                table, has_marked_id, np.where(is_loser, RowKind.UNREAD_LOSER, RowKind.UNREAD).astype(np.uint8), number
            )

    def _add_candidates(
        self, rows: pa.Table, chosen: npt.NDArray[np.bool_], kinds: npt.NDArray[np.uint8], number: int
    ) -> npt.NDArray[np.uint32]:
        """Add the chosen rows as candidates; `number` is that of the first row. Return the hashes of their ids."""
        import numpy as np
        import pyarrow as pa

        at = np.flatnonzero(chosen)
        rows = rows if len(at) == len(chosen) else rows.take(at)
        hashes = _hashes(rows["id"])
        columns = [*rows.select(rows_schema().names).columns, pa.array(number + at), pa.array(kinds[at])]
        self._candidates.add(pa.Table.from_arrays(columns, schema=candidates_schema()), hashes)
        return hashes

    def _mark(self, hashes: npt.NDArray[np.uint32]) -> None:
        self._marked[hashes & _MASK] = True

    def _is_marked(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        marked: npt.NDArray[np.bool_] = self._marked[_hashes(table["id"]) & _MASK]
        return marked


def _equal_rows(new: pa.Table, parts: Sequence[pa.Table]) -> tuple[pa.Table, npt.NDArray[np.bool_] | None]:
    """Return the records of an object, and which of them equal the ledger's row in the same position.

    These get the state and the version of that row. The mask is None if an id was added, removed or moved.
    """
    import numpy as np
    import pyarrow as pa

    old = pa.concat_tables([rows_schema().empty_table(), *parts]).combine_chunks()
    if not old["id"].equals(new["id"]):
        return new, None
    states, read = old["state"].to_numpy(), new["state"].to_numpy()
    equal = (states == RecordState.TOMBSTONE) == (read == RecordState.TOMBSTONE)
    equal &= ~are_any_of(states, (*LOSER_STATES, RecordState.PENDING)) & ~lost_predictions(states, read)
    equal &= same_lists(old["content_keys"], new["content_keys"])
    for name in ("record_hash", "routing"):
        equal &= same_values(old[name], new[name])
    states, versions = np.where(equal, states, read), np.where(equal, old["version"].to_numpy(), 0)
    return with_verdicts(new, states, versions), equal


def _hashes(ids: pa.ChunkedArray) -> npt.NDArray[np.uint32]:
    """Return a hash of each id."""
    import numpy as np
    import pyarrow as pa

    return np.fromiter(map(zlib.crc32, ids.cast(pa.binary()).to_numpy()), np.uint32, len(ids))
