"""Decides which of several rows with one id wins, and compares it with the row that won before."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Literal

from opensearch_batch.core.ledger.classes import (
    Deletion,
    DiffCounts,
    RecordClass,
    are_rejected,
    compare,
    loser_states,
    may_be_indexed,
)
from opensearch_batch.core.ledger.partitions import SpooledTables
from opensearch_batch.core.ledger.rows import DOCUMENT_STATES, RecordState, are_any_of, rows_schema, with_verdicts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

Mode = Literal["snapshot", "append"]
_POSITION_BITS, _LEFT_BIT = 34, 62
_COMPARED = ["routing", "version", "record_hash", "content_keys", "state"]
_DECISION = [("row", "<i8"), ("class", "u1"), ("state", "u1"), ("version", "<i8")]


class RowKind(enum.IntEnum):
    """Where a row comes from, and whether it can win.

    `read`: from this run. All others are rows of the ledger. `previous`: won before, and cannot win again. `left`: won
    before, and can win although its record left the object: in append mode absence means nothing, and in a snapshot the
    record may be one of the rows of its object that cannot be read. `unread`, `unread_loser`: won or lost before, in an
    object that did not change.
    """

    READ = 0
    PREVIOUS = 1
    LEFT = 2
    UNREAD = 3
    UNREAD_LOSER = 4


class RowNumbers:
    """Numbers the rows of all objects in one sequence."""

    def __init__(self) -> None:
        self.end = 0
        self._objects: list[tuple[float, str, int, bool]] = []

    def add_object(self, uri: str, modified: float, *, stale: bool) -> None:
        """Add an object."""
        self._objects.append((modified, uri, self.end, stale))

    def add_rows(self, count: int) -> int:
        """Add rows to the last object, and return the number of the first one."""
        self.end += count
        return self.end - count

    def freeze(self, mode: Mode) -> None:
        """Rank the objects; no object can be added afterwards."""
        import numpy as np

        self._mode = mode
        keys = [(modified if mode == "append" else 0.0, uri) for modified, uri, _, _ in self._objects]
        self._ranks = np.argsort(sorted(range(len(keys)), key=keys.__getitem__))
        self._starts = np.array([start for _, _, start, _ in self._objects], np.int64)
        self._stale = np.array([stale for _, _, _, stale in self._objects], bool)

    def order(self, rows: npt.NDArray[np.int64], has_left: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return numbers that grow with the precedence of rows.

        In a snapshot, a row whose record has left its object comes before all rows that have a record.
        """
        import numpy as np

        objects = self._objects_of(rows)
        order: npt.NDArray[np.int64] = (self._ranks[objects] << _POSITION_BITS) + rows - self._starts[objects]
        return order - (has_left.astype(np.int64) << _LEFT_BIT) if self._mode == "snapshot" else order

    def are_stale(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which rows belong to stale objects."""
        return self._stale[self._objects_of(rows)]

    def _objects_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        import numpy as np

        return np.searchsorted(self._starts, rows, side="right") - 1


class Decisions:
    """Decisions about rows, 18 bytes each."""

    def __init__(self) -> None:
        import numpy as np

        self._parts: list[npt.NDArray[np.void]] = [np.empty(0, _DECISION)]

    def add(
        self, rows: npt.NDArray[np.int64], classes: npt.ArrayLike, states: npt.ArrayLike, versions: npt.ArrayLike
    ) -> None:
        """Add decisions by row number."""
        import numpy as np

        part = np.empty(len(rows), _DECISION)
        part["row"], part["class"], part["state"], part["version"] = rows, classes, states, versions
        self._parts.append(part)

    def of(self, first: int, count: int) -> npt.NDArray[np.void]:
        """Return the decisions about the `count` rows from number `first` on, by row number."""
        import numpy as np

        if len(self._parts) > 1:
            all_parts = np.concatenate(self._parts)
            self._parts = [all_parts[np.argsort(all_parts["row"])]]
        start, end = np.searchsorted(self._parts[0]["row"], (first, first + count)).tolist()
        return self._parts[0][start:end]


def candidates_schema() -> pa.Schema:
    """Return the columns of candidates: those of ledger rows, the row number and the `RowKind`."""
    import pyarrow as pa

    return rows_schema().append(pa.field("row", pa.int64())).append(pa.field("kind", pa.uint8()))


def deletions_schema() -> pa.Schema:
    """Return the columns of deletions: id, routing and version of the document, and the reason (`Deletion`)."""
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("routing", pa.string()), ("version", pa.int64()), ("reason", pa.uint8())])


class Resolver:
    """Decides which row of each id wins; collects the decisions and the deletions."""

    def __init__(self, numbers: RowNumbers, counts: DiffCounts) -> None:
        self.decisions = Decisions()
        self.deletions = SpooledTables(deletions_schema())
        self._numbers = numbers
        self._counts = counts

    def resolve(self, rows: pa.Table) -> None:
        """Decide about rows, which must include all candidates of their ids."""
        import numpy as np

        kinds, numbers = rows["kind"].to_numpy(), rows["row"].to_numpy()
        ids = rows["id"].combine_chunks().dictionary_encode()
        codes, distinct = ids.indices.to_numpy(), len(ids.dictionary)
        candidates = np.flatnonzero(kinds != RowKind.PREVIOUS)
        has_left = (kinds == RowKind.LEFT) | ((rows["line"].to_numpy() == 0) & (kinds != RowKind.READ))
        order = self._numbers.order(numbers[candidates], has_left[candidates])
        winners = _last_of_each(codes, candidates[np.argsort(order)], distinct)
        won_before = np.flatnonzero(are_any_of(kinds, (RowKind.PREVIOUS, RowKind.LEFT, RowKind.UNREAD)))
        previous = _last_of_each(codes, won_before, distinct)[codes]
        wins = np.zeros(len(kinds), bool)
        wins[winners[winners >= 0]] = True
        self._lose(rows, np.flatnonzero(~wins & are_any_of(kinds, (RowKind.READ, RowKind.UNREAD))))
        compared = wins & are_any_of(kinds, (RowKind.READ, RowKind.UNREAD_LOSER))
        self._win(rows, np.flatnonzero(compared & (previous >= 0)), previous)
        self._win(rows, np.flatnonzero(compared & (previous < 0)), None)
        self._retain(rows, np.flatnonzero(wins & (kinds == RowKind.LEFT)))
        self._remove(rows, np.flatnonzero((kinds == RowKind.PREVIOUS) & (winners[codes] < 0)))

    def _lose(self, rows: pa.Table, positions: npt.NDArray[np.int64]) -> None:
        kinds, states = rows["kind"].to_numpy()[positions], rows["state"].to_numpy()[positions]
        is_unread = kinds == RowKind.UNREAD
        self._counts.demoted += int(is_unread.sum())
        self._counts.duplicate += int((~is_unread & ~are_rejected(rows)[positions]).sum())
        # The document of an unread row is counted as kept already, and again when the new winner is compared.
        self._counts.kept -= int((is_unread & are_any_of(states, DOCUMENT_STATES)).sum())
        self.decisions.add(rows["row"].to_numpy()[positions], RecordClass.DUPLICATE, loser_states(states), 0)

    def _win(self, rows: pa.Table, positions: npt.NDArray[np.int64], previous: npt.NDArray[np.int64] | None) -> None:
        import numpy as np

        columns, count = rows.select(_COMPARED), len(positions)
        if not count:
            return
        new = columns.take(positions)
        if previous is None:
            # The row counts as stale, so a tombstone deletes: another scope may have written a document with the id.
            documents, is_stale = positions, np.ones(count, bool)
            old = with_verdicts(new, np.full(count, RecordState.TOMBSTONE, np.uint8), np.zeros(count, np.int64))
        else:
            documents = previous[positions]
            old, is_stale = columns.take(documents), self._numbers.are_stale(rows["row"].to_numpy()[documents])
        compared = compare(old, new, is_stale)
        self._counts.count(compared)
        is_loser = rows["kind"].to_numpy()[positions] == RowKind.UNREAD_LOSER
        self._counts.promoted += int((is_loser & (compared.classes != RecordClass.REJECTED)).sum())
        numbers = rows["row"].to_numpy()[positions]
        self.decisions.add(numbers, compared.classes, compared.states, compared.versions)
        self._delete(rows, documents, compared.deletions)

    def _retain(self, rows: pa.Table, positions: npt.NDArray[np.int64]) -> None:
        numbers, states, versions = (rows[name].to_numpy()[positions] for name in ("row", "state", "version"))
        self._counts.retained += len(numbers)
        self._counts.kept += int(are_any_of(states, DOCUMENT_STATES).sum())
        self.decisions.add(numbers, RecordClass.KEPT, states, versions)

    def _remove(self, rows: pa.Table, positions: npt.NDArray[np.int64]) -> None:
        states, versions = (rows[name].to_numpy()[positions] for name in ("state", "version"))
        self._counts.removed += int(are_any_of(states, DOCUMENT_STATES).sum())
        self._delete(rows, positions, may_be_indexed(states, versions) * Deletion.ABSENT)

    def _delete(self, rows: pa.Table, positions: npt.NDArray[np.int64], reasons: npt.NDArray[Any]) -> None:
        import numpy as np
        import pyarrow as pa

        chosen = np.flatnonzero(reasons)
        deleted = rows.select(["id", "routing", "version"]).take(positions[chosen])
        column = pa.array(reasons[chosen].astype(np.uint8))
        self.deletions.add(deleted.append_column(deletions_schema().field("reason"), column))


def _last_of_each(codes: npt.NDArray[np.int32], positions: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return the last of the positions of each code, -1 for a code without a position."""
    import numpy as np

    last = np.full(count, -1, np.int64)
    last[codes[positions]] = positions
    return last
