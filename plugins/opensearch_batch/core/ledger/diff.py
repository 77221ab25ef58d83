"""Diff of a source and the record ledger: the class of each record, and the deletions.

Of several records with one id, the last one wins, in the order of the objects and in the order of their records. So
the documents that should be in the index depend on the source only, not on the order of the runs. Objects are ordered
by their URI in a snapshot, and by the time of their last change in append mode.

1. All rows of the objects that changed are candidates: those that were read now, and those of the ledger. Only records
   that are the same as the ledger's rows in their places are not.
2. Other rows are candidates if they have the id of such a row, which a table of hashes tells.
3. All candidates are dealt by id into partitions. In each partition, the winner of an id is compared with the row that
   won before, so a move between objects is no change.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING, NamedTuple

from opensearch_batch.core.ledger.classes import DiffCounts, are_rejected, same_lists, same_values
from opensearch_batch.core.ledger.difference import Difference, NumberedObject, ReadRows
from opensearch_batch.core.ledger.head import Entry, in_file_order
from opensearch_batch.core.ledger.partitions import Partitions, SpooledTables
from opensearch_batch.core.ledger.resolve import Kind, Mode, Resolver, RowNumbers, candidates_schema
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
    read: ReadRows,
    *,
    mode: Mode,
    vanished: Collection[str] = (),
    memory_bytes: int = MEMORY_BYTES,
) -> Difference:
    """Compare the records of objects that changed with the ledger.

    An object of `new` may come in several parts, one after the other. The `entries` are the objects of the ledger,
    whose rows `read` reads; those that do not exist any more have `vanished`.
    """
    state = _Diff(entries, read, mode, memory_bytes)
    for uri, parts in groupby(new, key=lambda part: part[0].uri):
        state.add_object(uri, parts)
    for uri in vanished:
        state.remove_object(uri)
    return state.result()


class _Diff:
    """The three steps of the diff."""

    def __init__(self, entries: Mapping[str, Entry], read: ReadRows, mode: Mode, memory_bytes: int) -> None:
        import numpy as np

        self._counts = DiffCounts(before=sum(entry.documents for entry in entries.values()))
        self._unread = dict(entries)
        self._read = read
        self._mode = mode
        self._numbers = RowNumbers()
        self._opened: list[NumberedObject] = []
        self._tables = SpooledTables(rows_schema())
        self._candidates = Partitions(candidates_schema(), memory_bytes=memory_bytes)
        # Which records are the same as before in their places, by the number of the first one in their table.
        self._stays: dict[int, npt.NDArray[np.bool_]] = {}
        self._marks: npt.NDArray[np.bool_] = np.zeros(1 << _HASH_BITS, bool)

    def add_object(self, uri: str, parts: Iterator[tuple[ObjectInfo, pa.Table]]) -> None:
        """Add the records of an object that was read, and the ledger's rows of it."""
        info, first = next(parts)
        entry = self._unread.pop(uri, None)
        item = self._numbered(uri, entry, info.modified)
        self._opened.append(item)
        second, stays = next(parts, None), None
        old: Iterable[tuple[int, pa.Table]] = item.ledger_rows(self._read)
        if entry is not None and entry.count == first.num_rows and second is None and not entry.stale:
            old = list(old)
            # A record loses its precedence if its object is older than before.
            if self._mode == "snapshot" or info.modified >= entry.modified:
                first, stays = _in_place(first, [table for _, table in old])
        self._leave(item, old, stays)
        self._add_part(item, first, stays)
        for _, table in chain(() if second is None else (second,), parts):
            self._add_part(item, table, None)

    def remove_object(self, uri: str) -> None:
        """Add the ledger's rows of an object that does not exist any more."""
        entry = self._unread.pop(uri)
        item = self._numbered(uri, entry, entry.modified)
        self._leave(item, item.ledger_rows(self._read), None)

    def result(self) -> Difference:
        """Find the other rows of the same ids, and decide about all of them."""
        import pyarrow as pa

        self._counts.kept += sum(entry.documents for entry in self._unread.values())
        unopened = [self._numbered(uri, entry, entry.modified) for uri, entry in in_file_order(self._unread)]
        self._find_in_place()
        if self._marks.any():
            for item in unopened:
                self._find(item)
        self._numbers.freeze(self._mode)
        resolver = Resolver(self._numbers, self._counts)
        for tables in self._candidates:
            resolver.resolve(pa.concat_tables([candidates_schema().empty_table(), *tables]).combine_chunks())
        return Difference(self._counts, self._opened, self._tables, unopened, self._read, resolver)

    def _numbered(self, uri: str, entry: Entry | None, modified: float) -> NumberedObject:
        """Number an object, and its rows in the ledger."""
        self._numbers.add_object(uri, modified, stale=entry is not None and entry.stale)
        return NumberedObject(uri, entry, self._numbers.add_rows(0 if entry is None else entry.count), [])

    def _leave(
        self, item: NumberedObject, old: Iterable[tuple[int, pa.Table]], stays: npt.NDArray[np.bool_] | None
    ) -> None:
        """Add the rows of the ledger that won, and whose records may not be in their object any more."""
        import numpy as np

        for number, table in old:
            states = table["state"].to_numpy()
            kinds = np.full(len(states), Kind.PREVIOUS, np.uint8)
            if self._mode == "append":
                # Nothing is known of a document that was never written.
                kinds[(states != RecordState.PENDING) | (table["version"].to_numpy() > 0)] = Kind.LEFT
            won = ~are_any_of(states, LOSER_STATES)
            if stays is not None:
                won &= ~stays[number - item.first : number - item.first + len(states)]
            self._mark(self._deal(table, won, kinds, number))

    def _add_part(self, item: NumberedObject, rows: pa.Table, stays: npt.NDArray[np.bool_] | None) -> None:
        """Add records that were read, without those that stay in their places."""
        import numpy as np

        count = rows.num_rows
        number = self._numbers.add_rows(count)
        item.parts.append((number, count))
        self._tables.add(rows)
        if stays is not None and count:
            self._stays[number] = stays
        chosen = np.ones(count, bool) if stays is None else ~stays
        self._mark(self._deal(rows, chosen, np.full(count, Kind.READ, np.uint8), number))

    def _find_in_place(self) -> None:
        """Add the records in their places that have the id of another candidate; count the others."""
        import numpy as np

        numbers = (number for item in self._opened for number, count in item.parts if count)
        for number, table in zip(numbers, self._tables if self._stays else (), strict=False):
            if (stays := self._stays.get(number)) is None:
                continue
            states, hits = table["state"].to_numpy(), stays & self._is_marked(table)
            others = stays & ~hits
            self._counts.unchanged += int((others & ~are_rejected(table)).sum())
            self._counts.kept += int((others & are_any_of(states, DOCUMENT_STATES)).sum())
            self._deal(table, hits, np.full(len(hits), Kind.PREVIOUS, np.uint8), number)
            read = np.where(states == RecordState.TOMBSTONE, states, RecordState.PENDING).astype(np.uint8)
            new = with_verdicts(table, read, np.zeros(len(hits), np.int64))
            self._deal(new, hits, np.full(len(hits), Kind.READ, np.uint8), number)

    def _find(self, item: NumberedObject) -> None:
        """Add the rows of an unchanged object that have the id of another candidate."""
        import numpy as np

        if item.entry is None or not any(self._is_marked(table).any() for table in self._read(item.entry, ("id",))):
            return
        for number, table in item.ledger_rows(self._read):
            is_loser = are_any_of(table["state"].to_numpy(), LOSER_STATES)
            # A duplicate of line 0 left its object in append mode: there is no record that could win.
            hits = self._is_marked(table) & ~(is_loser & (table["line"].to_numpy() == 0))
            self._deal(table, hits, np.where(is_loser, Kind.UNREAD_LOSER, Kind.UNREAD).astype(np.uint8), number)

    def _deal(
        self, rows: pa.Table, chosen: npt.NDArray[np.bool_], kinds: npt.NDArray[np.uint8], number: int
    ) -> npt.NDArray[np.uint32]:
        """Add the chosen ones of rows, the first of which has a number, and return the hashes of their ids."""
        import numpy as np
        import pyarrow as pa

        at = np.flatnonzero(chosen)
        rows = rows if len(at) == len(chosen) else rows.take(at)
        keys = _hashes(rows["id"])
        columns = [*rows.select(rows_schema().names).columns, pa.array(number + at), pa.array(kinds[at])]
        self._candidates.add(pa.Table.from_arrays(columns, schema=candidates_schema()), keys)
        return keys

    def _mark(self, keys: npt.NDArray[np.uint32]) -> None:
        self._marks[keys & _MASK] = True

    def _is_marked(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        marked: npt.NDArray[np.bool_] = self._marks[_hashes(table["id"]) & _MASK]
        return marked


def _in_place(new: pa.Table, parts: Sequence[pa.Table]) -> tuple[pa.Table, npt.NDArray[np.bool_] | None]:
    """Return the records of an object, and which of them are the same as the ledger's rows in their places.

    Those have the state and the version of these rows. There are none if an id came, went or moved.
    """
    import numpy as np
    import pyarrow as pa

    old = pa.concat_tables([rows_schema().empty_table(), *parts]).combine_chunks()
    if not old["id"].equals(new["id"]):
        return new, None
    states, read = old["state"].to_numpy(), new["state"].to_numpy()
    stays = (states == RecordState.TOMBSTONE) == (read == RecordState.TOMBSTONE)
    stays &= ~are_any_of(states, (*LOSER_STATES, RecordState.PENDING))
    stays &= same_lists(old["content_keys"], new["content_keys"])
    for name in ("record_hash", "routing"):
        stays &= same_values(old[name], new[name])
    states, versions = np.where(stays, states, read), np.where(stays, old["version"].to_numpy(), 0)
    return with_verdicts(new, states, versions), stays


def _hashes(ids: pa.ChunkedArray) -> npt.NDArray[np.uint32]:
    """Return a hash of each id."""
    import numpy as np
    import pyarrow as pa

    return np.fromiter(map(zlib.crc32, ids.cast(pa.binary()).to_numpy()), np.uint32, len(ids))
