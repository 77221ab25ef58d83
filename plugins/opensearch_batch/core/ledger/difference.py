"""The result of a diff: counts, deletions, and the rows of the objects with their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from opensearch_batch.core.ledger.classes import DiffCounts, RecordClass
from opensearch_batch.core.ledger.head import Entry
from opensearch_batch.core.ledger.partitions import SpooledTables
from opensearch_batch.core.ledger.resolve import Resolver
from opensearch_batch.core.ledger.rows import UNKNOWN_HASH, RecordState, rows_schema, with_verdicts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# Returns the rows that the ledger has of an object, in parts; all columns, or only some.
ReadRows = Callable[[Entry, Sequence[str]], Iterable["pa.Table"]]


class ObjectRows(NamedTuple):
    """Rows of an object, or of a part of it, after the diff, with the class of each row.

    A new or changed record is pending until its write has a verdict. Rows of an object that did not change are `kept`,
    except those that lose or win now; a winner that is new or changed has to be read.
    """

    uri: str
    rows: pa.Table
    classes: npt.NDArray[np.uint8]


class NumberedObject(NamedTuple):
    """An object: `first` is the number of its first ledger row; `parts` are number and length of each part read."""

    uri: str
    entry: Entry | None
    first: int
    parts: list[tuple[int, int]]

    def ledger_rows(self, read_rows: ReadRows) -> Iterator[tuple[int, pa.Table]]:
        """Yield the ledger's rows, in parts, each with the number of its first row."""
        number = self.first
        for table in () if self.entry is None else read_rows(self.entry, ()):
            yield number, table
            number += table.num_rows


class Difference(NamedTuple):
    """The result of a diff. `tables` has the parts of the `opened` objects in order, without empty parts."""

    counts: DiffCounts
    opened: Sequence[NumberedObject]
    tables: SpooledTables
    unopened: Sequence[NumberedObject]
    read_rows: ReadRows
    resolver: Resolver

    def deletions(self) -> Iterator[pa.Table]:
        """Yield the documents to delete, with the columns of `deletions_schema`."""
        return iter(self.resolver.deletions)

    def objects(self) -> Iterator[ObjectRows]:
        """Yield the rows of the objects that were read, in order, then those of other objects with decided rows.

        The parts of an object are consecutive. Rows that are retained though their records left an object are its last
        part; their line is 0.
        """
        tables = iter(self.tables)
        for item in self.opened:
            for number, count in item.parts:
                table = next(tables) if count else rows_schema().empty_table()
                # Records without a decision equal the ledger's row in the same position.
                yield self._with_decisions(item.uri, number, table, RecordClass.UNCHANGED)
            for number, table in item.ledger_rows(self.read_rows) if self._has_decisions(item) else ():
                yield self._retained(item, number, table)
        for item in filter(self._has_decisions, self.unopened):
            for number, table in item.ledger_rows(self.read_rows):
                yield self._with_decisions(item.uri, number, table, RecordClass.KEPT)

    def _has_decisions(self, item: NumberedObject) -> bool:
        """Return whether there are decisions about the ledger's rows of an object."""
        return item.entry is not None and len(self.resolver.decisions.of(item.first, item.entry.count)) > 0

    def _with_decisions(self, uri: str, number: int, rows: pa.Table, default: RecordClass) -> ObjectRows:
        """Return rows with their decisions; rows without a decision get the default class."""
        import numpy as np

        decisions = self.resolver.decisions.of(number, rows.num_rows)
        classes = np.full(rows.num_rows, default, np.uint8)
        states, versions = rows["state"].to_numpy().copy(), rows["version"].to_numpy().copy()
        at = decisions["row"] - number
        classes[at], states[at], versions[at] = decisions["class"], decisions["state"], decisions["version"]
        return ObjectRows(uri, with_verdicts(rows, states, versions), classes)

    def _retained(self, item: NumberedObject, number: int, rows: pa.Table) -> ObjectRows:
        """Return the rows that are retained although their records left the object."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        left = rows.take(pa.array(self.resolver.decisions.of(number, rows.num_rows)["row"] - number))
        states = left["state"].to_numpy().copy()
        # The last write has no verdict and cannot be repeated, because its record is gone: its content is unknown.
        is_unknown = states == RecordState.PENDING
        states[is_unknown] = RecordState.INDEXED
        # The document of a stale object was not written again; it will be when its record can be read.
        is_unknown |= item.entry is not None and item.entry.stale
        known_hashes = pc.if_else(pa.array(~is_unknown), left["record_hash"], UNKNOWN_HASH)
        left = with_verdicts(left, states, left["version"].to_numpy())
        left = _replaced(left, "record_hash", known_hashes.cast(left.schema.field("record_hash").type))
        left = _replaced(left, "line", pa.array(np.zeros(len(left), np.uint32)))
        return ObjectRows(item.uri, left, np.full(len(left), RecordClass.KEPT, np.uint8))


def _replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)
