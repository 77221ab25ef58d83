"""Diff of a source and the record ledger: the class of each record, and the deletions. Pure, with bounded memory.

Of several records with one id, the last one wins, in the order of the objects and in the order of their records. So
the documents that should be in the index depend on the source only, not on the order of the runs. Objects are ordered
by their URI in a snapshot, and by the time of their last change in append mode.

1. The records of an object that changed are joined by id with the ledger's rows of the object. What has no partner
   appeared or vanished.
2. Of other rows, only those matter whose id appeared or vanished. They are found by a table of hashes, among the rows
   that step 1 joined and among the rows of objects that did not change.
3. All these are dealt by id into partitions. In each partition, the winner of an id is compared with the row that won
   before, so a move between objects is no change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, groupby
from typing import TYPE_CHECKING, NamedTuple

from opensearch_batch.core.ledger.classes import Compared, DiffCounts, RecordClass, compare, loser_states
from opensearch_batch.core.ledger.columns import are_any_of, are_last_of_their_id, hashes, positions_in
from opensearch_batch.core.ledger.difference import Difference, OpenedRows, ReadRows
from opensearch_batch.core.ledger.head import Entry
from opensearch_batch.core.ledger.partitions import KEY_BITS, Partitions
from opensearch_batch.core.ledger.resolve import Kind, Mode, Resolver, RowNumbers, candidates_schema
from opensearch_batch.core.ledger.rows import LOSER_STATES, RecordState, rows_schema, with_verdicts
from opensearch_batch.core.types.object_info import ObjectInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

MEMORY_ROWS = 1 << 18
# Objects with more rows in the ledger are not joined in memory; their records are all dealt into partitions.
MAX_JOINED_ROWS = 1 << 21
_UNRESOLVED = 255
_HASH_BITS = 24
_UNUSED_BITS = KEY_BITS - _HASH_BITS


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
    memory_rows: int = MEMORY_ROWS,
    max_joined_rows: int = MAX_JOINED_ROWS,
) -> Difference:
    """Compare the records of objects that changed with the ledger.

    Args:
        new: the objects that were read, with their rows; an object may come in several parts, one after the other.
        entries: the objects of the ledger.
        read: reads the ledger's rows of an object.
        mode: what absence means: in a snapshot, the record was removed.
        vanished: the objects of the ledger that do not exist any more.
        memory_rows: how many rows of each kind stay in memory.
        max_joined_rows: the largest object that is joined in memory.
    """
    state = _Diff(entries, read, mode, memory_rows, max_joined_rows)
    for uri, group in groupby(new, key=lambda item: item[0].uri):
        parts = iter(group)
        info, first = next(parts)
        state.add_object(uri, info, first, (table for _, table in parts))
    for uri in vanished:
        state.remove_object(uri)
    return state.result()


class _Diff:
    """The three steps of the diff."""

    def __init__(
        self, entries: Mapping[str, Entry], read: ReadRows, mode: Mode, memory_rows: int, max_joined_rows: int
    ) -> None:
        import numpy as np

        self.counts = DiffCounts(before=sum(entry.documents for entry in entries.values()))
        self._entries = entries
        self._read = read
        self._mode = mode
        self._memory_rows = memory_rows
        self._max_joined_rows = max_joined_rows
        self._numbers = RowNumbers()
        self._not_unread: set[str] = set()
        self._unread: list[tuple[str, int, Entry]] = []
        self._opened = OpenedRows()
        self._candidates = Partitions(candidates_schema(), memory_rows=memory_rows)
        self._marks: npt.NDArray[np.bool_] = np.zeros(1 << _HASH_BITS, bool)
        self._has_marks = self._appeared_or_vanished = False

    def add_object(self, uri: str, info: ObjectInfo, first: pa.Table, others: Iterator[pa.Table]) -> None:
        """Add the records of an object that was read."""
        import numpy as np

        entry = self._entries.get(uri)
        self._not_unread.add(uri)
        base = self._numbers.add_object(uri, info.modified, stale=entry is not None and entry.stale)
        second = next(others, None)
        moved_back = entry is not None and self._mode == "append" and info.modified < entry.modified
        is_large = entry is not None and entry.count > self._max_joined_rows
        if second is None and not moved_back and not is_large:
            self._join(uri, entry, first, base)
            return
        if entry is not None:
            self._vanish_object(entry, base)
        for table in chain((first,), () if second is None else (second,), others):
            count = table.num_rows
            number = self._keep(uri, table, np.full(count, _UNRESOLVED, np.uint8))
            self._mark(self._deal(table, np.full(count, Kind.APPEARED, np.uint8), number + np.arange(count)))
        self._appeared_or_vanished = True

    def remove_object(self, uri: str) -> None:
        """Add an object of the ledger that does not exist any more."""
        entry = self._entries[uri]
        self._not_unread.add(uri)
        self._vanish_object(entry, self._numbers.add_object(uri, entry.modified, stale=entry.stale))

    def result(self) -> Difference:
        """Find the other rows of the ids that appeared or vanished, and decide about all of them."""
        if self._has_marks:
            self._find_joined()
        if self._appeared_or_vanished:
            self._find_unread()
        self.counts.kept += sum(entry.documents for uri, entry in self._entries.items() if uri not in self._not_unread)
        self._numbers.freeze(self._mode)
        resolver = Resolver(
            self._numbers, self.counts, scanned=self._appeared_or_vanished, memory_rows=self._memory_rows
        )
        for table in self._candidates:
            resolver.resolve(table)
        return Difference(self.counts, self._opened, self._unread, self._read, resolver)

    def _join(self, uri: str, entry: Entry | None, new: pa.Table, base: int) -> None:
        """Join the records of an object by id with the ledger's rows of it."""
        import numpy as np

        new = new.combine_chunks()
        old = self._old_rows(entry)
        is_loser = are_any_of(old["state"].to_numpy(), LOSER_STATES)
        winners = _filtered(old, ~is_loser)
        wins, partners = _partners(new["id"], winners["id"])
        is_joined = wins & (partners >= 0)
        compared = self._compare(entry, _taken(winners, partners[is_joined]), _filtered(new, is_joined))
        self.counts.count(compared)
        self.counts.duplicate += int((~wins).sum())
        classes, versions = np.full(new.num_rows, _UNRESOLVED, np.uint8), np.zeros(new.num_rows, np.int64)
        states = new["state"].to_numpy().copy()
        classes[~wins] = RecordClass.DUPLICATE
        states[~wins] = loser_states(states[~wins])
        classes[is_joined], versions[is_joined], states[is_joined] = compared[:3]
        number = self._keep(uri, with_verdicts(new, states, versions), classes)
        if compared.deletions.any():
            self._mark(hashes(_filtered(new, is_joined)["id"])[compared.deletions > 0])
        self._appear(new, wins & (partners < 0), _filtered(old, is_loser)["id"], number)
        is_gone = np.ones(winners.num_rows, bool)
        is_gone[partners[is_joined]] = False
        if is_gone.any():
            self._vanish(_filtered(winners, is_gone), base)

    def _appear(self, new: pa.Table, appeared: npt.NDArray[np.bool_], losers: pa.ChunkedArray, number: int) -> None:
        """Add records that have no partner; those that lost before, to a record in another object, lose if it stays."""
        import numpy as np
        import pyarrow.compute as pc

        if not appeared.any():
            return
        rows = _filtered(new, appeared)
        kinds = np.full(rows.num_rows, Kind.APPEARED, np.uint8)
        if self._mode == "snapshot" and len(losers):
            kinds[pc.is_in(rows["id"], value_set=losers).to_numpy()] = Kind.LOSING
        self._appeared_or_vanished |= bool((kinds == Kind.APPEARED).any())
        self._mark(self._deal(rows, kinds, number + np.flatnonzero(appeared)))

    def _vanish_object(self, entry: Entry, base: int) -> None:

        self._appeared_or_vanished = True
        for table in self._read(entry, ()):
            self._vanish(_winners(table), base)

    def _vanish(self, rows: pa.Table, base: int) -> None:
        """Add rows of the ledger that won, and whose records are not in their object any more."""
        import numpy as np

        kinds = np.full(rows.num_rows, Kind.PREVIOUS, np.uint8)
        if self._mode == "append":
            # Nothing is known of a document that was never written.
            written = (rows["state"].to_numpy() != RecordState.PENDING) | (rows["version"].to_numpy() > 0)
            kinds[written] = Kind.LEFT
        self._appeared_or_vanished |= bool((kinds == Kind.PREVIOUS).any())
        self._mark(self._deal(rows, kinds, np.full(rows.num_rows, base)))

    def _find_joined(self) -> None:
        """Add the joined rows whose ids appeared or vanished elsewhere, and those from which a deletion follows."""
        import numpy as np
        import pyarrow as pa

        for uri, number, table in self._opened:
            classes = table["class"].to_numpy()
            hits = np.flatnonzero((classes != _UNRESOLVED) & (classes != RecordClass.DUPLICATE))
            if len(hits):
                hits = hits[self._marks[hashes(table["id"].take(pa.array(hits))) >> _UNUSED_BITS]]
            if len(hits):
                entry, new = self._entries[uri], table.take(pa.array(hits))
                old = _winners(self._old_rows(entry))
                previous = old.take(pa.array(positions_in(new["id"], old["id"])))
                self.counts.count(self._compare(entry, previous, new), -1)
                self._deal(new, np.full(len(hits), Kind.JOINED, np.uint8), number + hits)
                self._deal(previous, np.full(len(hits), Kind.PREVIOUS, np.uint8), np.full(len(hits), number - 1))

    def _find_unread(self) -> None:
        """Add the rows of unchanged objects whose ids appeared or vanished elsewhere."""
        import numpy as np
        import pyarrow as pa

        unread = [(entry.rows, entry.first, uri) for uri, entry in self._entries.items() if uri not in self._not_unread]
        for _, _, uri in sorted(unread):
            entry = self._entries[uri]
            self._numbers.add_object(uri, entry.modified, stale=entry.stale)
            number = self._numbers.add_rows(entry.count)
            self._unread.append((uri, number, entry))
            if not any(self._is_marked(table).any() for table in self._read(entry, ("id",))):
                continue
            for table in self._read(entry, ()):
                is_loser = are_any_of(table["state"].to_numpy(), LOSER_STATES)
                # A duplicate of line 0 left its object in append mode: there is no record that could win.
                hits = np.flatnonzero(self._is_marked(table) & ~(is_loser & (table["line"].to_numpy() == 0)))
                kinds = np.where(is_loser[hits], Kind.UNREAD_LOSER, Kind.UNREAD).astype(np.uint8)
                self._deal(table.take(pa.array(hits)), kinds, number + hits)
                number += table.num_rows

    def _deal(
        self, rows: pa.Table, kinds: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint32]:
        """Add candidates, and return the hashes of their ids."""
        import pyarrow as pa

        keys = hashes(rows["id"])
        columns = [*rows.select(rows_schema().names).columns, pa.array(numbers), pa.array(kinds)]
        self._candidates.add(pa.Table.from_arrays(columns, schema=candidates_schema()), keys)
        return keys

    def _mark(self, keys: npt.NDArray[np.uint32]) -> None:
        self._marks[keys >> _UNUSED_BITS] = True
        self._has_marks = True

    def _is_marked(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        marked: npt.NDArray[np.bool_] = self._marks[hashes(table["id"]) >> _UNUSED_BITS]
        return marked

    def _keep(self, uri: str, rows: pa.Table, classes: npt.NDArray[np.uint8]) -> int:
        """Keep the rows of an object that was read, and return the number of the first one."""
        number = self._numbers.add_rows(rows.num_rows)
        self._opened.add(uri, number, rows, classes)
        return number

    def _compare(self, entry: Entry | None, old: pa.Table, new: pa.Table) -> Compared:
        import numpy as np

        return compare(old, new, np.full(new.num_rows, entry is not None and entry.stale))

    def _old_rows(self, entry: Entry | None) -> pa.Table:
        import pyarrow as pa

        tables = () if entry is None else self._read(entry, ())
        return pa.concat_tables([rows_schema().empty_table(), *tables]).combine_chunks()


def _partners(ids: pa.ChunkedArray, others: pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return which rows are the last one with their id, and the position of each id in others, which are distinct."""
    import numpy as np

    if ids.equals(others):
        return np.ones(len(ids), bool), np.arange(len(ids))
    return are_last_of_their_id(ids), positions_in(ids, others)


def _winners(rows: pa.Table) -> pa.Table:
    return _filtered(rows, ~are_any_of(rows["state"].to_numpy(), LOSER_STATES))


def _filtered(rows: pa.Table, chosen: npt.NDArray[np.bool_]) -> pa.Table:
    import pyarrow as pa

    return rows if chosen.all() else rows.filter(pa.array(chosen))


def _taken(rows: pa.Table, positions: npt.NDArray[np.int64]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    is_same = len(positions) == rows.num_rows and bool((positions == np.arange(rows.num_rows)).all())
    return rows if is_same else rows.take(pa.array(positions))
