"""The result of a diff: counts, deletions, and the rows of the objects with their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from opensearch_batch.core.ledger.classes import DiffCounts, RecordClass
from opensearch_batch.core.ledger.head import Entry
from opensearch_batch.core.ledger.partitions import Cursor, SpooledTables
from opensearch_batch.core.ledger.resolve import Resolver, candidates_schema, verdicts_schema
from opensearch_batch.core.ledger.rows import rows_schema, with_verdicts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# Returns the rows that the ledger has of an object, in parts; all columns, or only some.
ReadRows = Callable[[Entry, Sequence[str]], Iterable["pa.Table"]]


class ObjectRows(NamedTuple):
    """Rows of an object, or of a part of it, as they are after the diff, with the class of each row.

    A record that is not unchanged is pending until its write has a verdict. An object that was not `opened` did not
    change, and only those of its rows differ from the ledger whose class is not `kept`: a new record won over a
    `duplicate`; the records that are new or changed have to be read now.
    """

    uri: str
    rows: pa.Table
    classes: npt.NDArray[np.uint8]
    opened: bool


class OpenedRows:
    """The rows of the objects that were read, in their order; each part has a URI and the number of its first row."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._schema = rows_schema().append(pa.field("class", pa.uint8()))
        self._tables = SpooledTables(self._schema)
        self._parts: list[tuple[str, int, int]] = []

    def add(self, uri: str, number: int, rows: pa.Table, classes: npt.NDArray[np.uint8]) -> None:
        """Add a part of an object."""
        import pyarrow as pa

        self._parts.append((uri, number, rows.num_rows))
        self._tables.add(rows.append_column(self._schema.field("class"), pa.array(classes)))

    def __iter__(self) -> Iterator[tuple[str, int, pa.Table]]:
        tables = iter(self._tables)
        for uri, number, count in self._parts:
            yield uri, number, next(tables) if count else self._schema.empty_table()


class Difference(NamedTuple):
    """The result of a diff.

    `unopened` are the unchanged objects with the numbers of their first rows.
    """

    counts: DiffCounts
    opened: OpenedRows
    unopened: Sequence[tuple[str, int, Entry]]
    read: ReadRows
    resolver: Resolver

    def deletions(self) -> Iterator[pa.Table]:
        """Yield the documents to delete, with the columns of `deletions_schema`."""
        return iter(self.resolver.deletions)

    def objects(self) -> Iterator[ObjectRows]:
        """Yield the rows of the objects that were read, in their order, then of the others whose rows changed; once.

        The parts of an object follow each other. The rows of records that left their object in append mode are its last
        part; their line is 0.
        """
        verdicts = Cursor(self.resolver.verdicts, verdicts_schema())
        retained = Cursor(self.resolver.retained, candidates_schema())
        for uri, parts in groupby(self.opened, key=lambda part: part[0]):
            end = 0
            for _, number, table in parts:
                end = number + table.num_rows
                yield _decided(uri, number, table, verdicts.take(end), opened=True)
            left = retained.take(end)
            if left.num_rows:
                yield ObjectRows(uri, left.select(rows_schema().names), _kept(left), opened=True)
        for uri, number, entry in self.unopened:
            decisions = verdicts.take(number + entry.count)
            if decisions.num_rows:
                yield from self._unopened_rows(uri, number, entry, decisions)

    def _unopened_rows(self, uri: str, number: int, entry: Entry, decisions: pa.Table) -> Iterator[ObjectRows]:
        import numpy as np
        import pyarrow as pa

        for table in self.read(entry, ()):
            end = number + table.num_rows
            first, last = np.searchsorted(decisions["row"].to_numpy(), (number, end)).tolist()
            part = table.append_column("class", pa.array(_kept(table)))
            yield _decided(uri, number, part, decisions.slice(first, last - first), opened=False)
            number = end


def _kept(rows: pa.Table) -> npt.NDArray[np.uint8]:
    import numpy as np

    return np.full(rows.num_rows, RecordClass.KEPT, np.uint8)


def _decided(uri: str, number: int, table: pa.Table, verdicts: pa.Table, *, opened: bool) -> ObjectRows:
    """Return rows, the first of which has a number, with what was decided of them."""
    classes, rows = table["class"].to_numpy(), table.select(rows_schema().names)
    if verdicts.num_rows:
        positions = verdicts["row"].to_numpy() - number
        classes, states, versions = classes.copy(), rows["state"].to_numpy().copy(), rows["version"].to_numpy().copy()
        classes[positions] = verdicts["class"].to_numpy()
        states[positions] = verdicts["state"].to_numpy()
        versions[positions] = verdicts["version"].to_numpy()
        rows = with_verdicts(rows, states, versions)
    return ObjectRows(uri, rows, classes, opened)
