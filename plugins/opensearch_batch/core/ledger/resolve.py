"""Decides which of several rows with one id wins, and compares it with the row that won before."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Literal

from opensearch_batch.core.ledger.classes import (
    Deletion,
    DiffCounts,
    RecordClass,
    compare,
    compare_with_nothing,
    loser_states,
    may_be_indexed,
)
from opensearch_batch.core.ledger.columns import are_any_of, last_of_each
from opensearch_batch.core.ledger.parquet_files import DIGEST_BYTES
from opensearch_batch.core.ledger.partitions import KEY_BITS, Partitions, SpooledTables
from opensearch_batch.core.ledger.rows import DOCUMENT_STATES, RecordState, rows_schema, with_verdicts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

Mode = Literal["snapshot", "append"]
_POSITION_BITS = 34
# The record hash of a document of which it is not known which record it is of: no record is equal to it.
UNKNOWN_HASH = bytes(DIGEST_BYTES)


class Kind(enum.IntEnum):
    """What a row is to the decision.

    Rows of objects that were read: `appeared` has no partner in the ledger's rows of its object; `losing` has one that
    was a duplicate; `joined` has one that won. Rows of the ledger: `previous` won and is not a candidate any more;
    `left` won and left its object in append mode, where absence means nothing. Rows of unchanged objects: `unread`,
    which won, and `unread_loser`.
    """

    APPEARED = 0
    LOSING = 1
    JOINED = 2
    PREVIOUS = 3
    LEFT = 4
    UNREAD = 5
    UNREAD_LOSER = 6


_OF_LEDGER = (Kind.PREVIOUS, Kind.LEFT, Kind.UNREAD)


class RowNumbers:
    """Numbers the objects, and the rows of all objects in one sequence. An object has a number before its first row."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.bases: list[int] = []
        self.end = 0
        self._modified: list[float] = []
        self._is_stale: list[bool] = []

    def add_object(self, uri: str, modified: float, *, stale: bool) -> int:
        """Add an object, and return the row number before its first row."""
        self.uris.append(uri)
        self.bases.append(self.end)
        self._modified.append(modified)
        self._is_stale.append(stale)
        self.end += 1
        return self.end - 1

    def add_rows(self, count: int) -> int:
        """Add rows to the last object, and return the number of the first one."""
        self.end += count
        return self.end - count

    def freeze(self, mode: Mode) -> None:
        """Rank the objects; none is added afterwards."""
        import numpy as np

        by_time = self._modified if mode == "append" else [0.0] * len(self.uris)
        ascending = sorted(range(len(self.uris)), key=lambda number: (by_time[number], self.uris[number]))
        self._ranks = np.empty(len(ascending), np.int64)
        self._ranks[ascending] = np.arange(len(ascending))
        self._starts = np.array(self.bases, np.int64)
        self._stale = np.array(self._is_stale, bool)

    def order(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return numbers that grow with the precedence of rows."""
        objects = self._objects(rows)
        return (self._ranks[objects] << _POSITION_BITS) + rows - self._starts[objects]

    def are_stale(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which rows are of stale objects."""
        return self._stale[self._objects(rows)]

    def keys(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Return keys that grow with the row numbers."""
        import numpy as np

        return (rows * ((1 << KEY_BITS) / (self.end + 1))).astype(np.uint32)

    def _objects(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        import numpy as np

        return np.searchsorted(self._starts, rows, side="right") - 1


def candidates_schema() -> pa.Schema:
    """Return the columns of the rows among which a winner is chosen."""
    import pyarrow as pa

    return rows_schema().append(pa.field("row", pa.int64())).append(pa.field("kind", pa.uint8()))


def verdicts_schema() -> pa.Schema:
    """Return the columns of what was decided of rows."""
    import pyarrow as pa

    return pa.schema([("row", pa.int64()), ("class", pa.uint8()), ("state", pa.uint8()), ("version", pa.int64())])


def deletions_schema() -> pa.Schema:
    """Return the columns of deletions: id, routing and version of the document, and the reason (`Deletion`)."""
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("routing", pa.string()), ("version", pa.int64()), ("reason", pa.uint8())])


class Resolver:
    """Collects decisions: verdicts of rows, rows to retain, and deletions.

    Args:
        numbers: the row numbers, frozen.
        counts: the counts that are updated.
        scanned: whether the rows of unchanged objects are among the candidates.
        memory_rows: how many rows stay in memory.
    """

    def __init__(self, numbers: RowNumbers, counts: DiffCounts, *, scanned: bool, memory_rows: int) -> None:
        self.verdicts = Partitions(verdicts_schema(), memory_rows=memory_rows)
        self.retained = Partitions(candidates_schema(), memory_rows=memory_rows)
        self.deletions = SpooledTables(deletions_schema())
        self._numbers = numbers
        self._counts = counts
        self._scanned = scanned

    def resolve(self, rows: pa.Table) -> None:
        """Decide about all rows of some ids."""
        import numpy as np

        kinds, numbers = rows["kind"].to_numpy(), rows["row"].to_numpy()
        ids = rows["id"].combine_chunks().dictionary_encode()
        codes, is_candidate = ids.indices.to_numpy(), kinds != Kind.PREVIOUS
        candidates = np.flatnonzero(is_candidate)
        order = self._numbers.order(numbers[candidates])
        winners = last_of_each(codes, candidates[np.argsort(order, kind="stable")], len(ids.dictionary))
        previous = last_of_each(codes, np.flatnonzero(are_any_of(kinds, _OF_LEDGER)), len(ids.dictionary))[codes]
        wins = np.zeros(len(kinds), bool)
        wins[winners[winners >= 0]] = True
        if not self._scanned:
            # No id appeared or vanished, so the record that won before is in an object that did not change.
            wins &= (kinds != Kind.LOSING) | (previous >= 0)
        self._lose(rows, np.flatnonzero(is_candidate & ~wins & ~are_any_of(kinds, (Kind.LEFT, Kind.UNREAD_LOSER))))
        compared = wins & ~are_any_of(kinds, (Kind.LEFT, Kind.UNREAD))
        self._win(rows, np.flatnonzero(compared & (previous >= 0)), previous)
        self._win(rows, np.flatnonzero(compared & (previous < 0)), None)
        self._counts.promoted += int((compared & (kinds == Kind.UNREAD_LOSER)).sum())
        self._retain(rows, np.flatnonzero(wins & (kinds == Kind.LEFT)))
        self._remove(rows, np.flatnonzero((kinds == Kind.PREVIOUS) & (winners[codes] < 0)))

    def _lose(self, rows: pa.Table, positions: npt.NDArray[np.int64]) -> None:
        import numpy as np

        kinds, states = rows["kind"].to_numpy()[positions], rows["state"].to_numpy()[positions]
        is_unread = kinds == Kind.UNREAD
        self._counts.demoted += int(is_unread.sum())
        self._counts.duplicate += int((~is_unread).sum())
        # The winner counts as kept, because this row is the one that won before.
        self._counts.kept -= int((is_unread & are_any_of(states, DOCUMENT_STATES)).sum())
        classes = np.full(len(positions), RecordClass.DUPLICATE, np.uint8)
        self._decide(rows, positions, classes, loser_states(states), np.zeros(len(positions), np.int64))

    def _win(self, rows: pa.Table, positions: npt.NDArray[np.int64], previous: npt.NDArray[np.int64] | None) -> None:
        import pyarrow as pa

        if not len(positions):
            return
        new = rows.take(pa.array(positions))
        if previous is None:
            documents, compared = new, compare_with_nothing(new)
        else:
            documents = rows.take(pa.array(previous[positions]))
            compared = compare(documents, new, self._numbers.are_stale(documents["row"].to_numpy()))
        self._counts.count(compared)
        self._decide(rows, positions, compared.classes, compared.states, compared.versions)
        self._delete(documents, compared.deletions)

    def _decide(
        self,
        rows: pa.Table,
        positions: npt.NDArray[np.int64],
        classes: npt.NDArray[np.uint8],
        states: npt.NDArray[np.uint8],
        versions: npt.NDArray[np.int64],
    ) -> None:
        import pyarrow as pa

        numbers = rows["row"].to_numpy()[positions]
        columns = [pa.array(values) for values in (numbers, classes, states, versions)]
        self.verdicts.add(pa.Table.from_arrays(columns, schema=verdicts_schema()), self._numbers.keys(numbers))

    def _retain(self, rows: pa.Table, positions: npt.NDArray[np.int64]) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        left = rows.take(pa.array(positions)).select(candidates_schema().names)
        states = left["state"].to_numpy().copy()
        # The last write has no verdict and is not repeated, because its record is gone: the document is unknown.
        is_unknown = states == RecordState.PENDING
        states[is_unknown] = RecordState.INDEXED
        known_hashes = pc.if_else(pa.array(~is_unknown), left["record_hash"], UNKNOWN_HASH)
        left = with_verdicts(left, states, left["version"].to_numpy())
        left = _replaced(left, "record_hash", known_hashes.cast(left.schema.field("record_hash").type))
        left = _replaced(left, "line", pa.array(np.zeros(len(left), np.uint32)))
        self._counts.retained += len(left)
        self._counts.kept += int(are_any_of(states, DOCUMENT_STATES).sum())
        self.retained.add(left, self._numbers.keys(left["row"].to_numpy()))

    def _remove(self, rows: pa.Table, positions: npt.NDArray[np.int64]) -> None:
        import numpy as np
        import pyarrow as pa

        gone = rows.take(pa.array(positions))
        states = gone["state"].to_numpy()
        self._counts.removed += int(are_any_of(states, DOCUMENT_STATES).sum())
        indexed = may_be_indexed(states, gone["version"].to_numpy())
        self._delete(gone, np.where(indexed, Deletion.ABSENT, 0).astype(np.uint8))

    def _delete(self, documents: pa.Table, reasons: npt.NDArray[np.uint8]) -> None:
        import numpy as np
        import pyarrow as pa

        positions = np.flatnonzero(reasons)
        deleted = documents.select(["id", "routing", "version"]).take(pa.array(positions))
        self.deletions.add(deleted.append_column(deletions_schema().field("reason"), pa.array(reasons[positions])))


def _replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)
