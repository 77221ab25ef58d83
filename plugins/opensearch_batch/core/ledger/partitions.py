"""Tables that may be larger than memory: they are dealt by a key into partitions on disk, and read one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from opensearch_batch.core.storage.temporary import SPOOL_BYTES, CollectedSpool

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

KEY_BITS = 32
_FANOUT_BITS = 6
_FANOUT = 1 << _FANOUT_BITS


class SpooledTables:
    """Tables of one schema in a temporary file. Iterating yields them in order, without those that have no rows."""

    def __init__(self, schema: pa.Schema, memory_bytes: int = SPOOL_BYTES) -> None:
        self.rows = 0
        self._schema = schema
        self._spool = CollectedSpool(memory_bytes)
        self._sizes: list[int] = []

    def add(self, table: pa.Table) -> None:
        """Add a table."""
        self._spool.seek(sum(self._sizes))
        for batch in table.combine_chunks().to_batches():
            content = batch.serialize()
            self._spool.write(memoryview(content))
            self._sizes.append(content.size)
        self.rows += table.num_rows

    def __iter__(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        offset = 0
        for size in self._sizes:
            self._spool.seek(offset)
            batch = pa.ipc.read_record_batch(pa.py_buffer(self._spool.read(size)), self._schema)
            yield pa.Table.from_batches([batch], self._schema)
            offset += size

    def close(self) -> None:
        """Discard the tables."""
        self._spool.close()


class Partitions:
    """Rows in the order of the leading bits of their keys, as tables of at most `memory_rows` rows.

    Rows with the same key are in the same table, so a table is larger if more rows have the same key. Few rows stay in
    memory, as one table.
    """

    def __init__(self, schema: pa.Schema, *, memory_rows: int, bits: int = 0) -> None:
        import pyarrow as pa

        self._schema = schema.append(pa.field("key", pa.uint32()))
        self._memory_rows = memory_rows
        self._bits = bits
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._parts: list[SpooledTables | None] | None = None

    def add(self, table: pa.Table, keys: npt.NDArray[np.uint32]) -> None:
        """Add rows with their keys."""
        import pyarrow as pa

        self._add(pa.Table.from_arrays([*table.columns, pa.array(keys)], schema=self._schema))

    def _add(self, table: pa.Table) -> None:
        if table.num_rows:
            self._waiting.append(table)
            self._waiting_rows += table.num_rows
        if self._waiting_rows > self._memory_rows:
            self._deal()

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the partitions, once; each is discarded when the next one is asked for."""
        import pyarrow as pa

        if self._parts is None:
            if self._waiting:
                yield pa.concat_tables(self._waiting).combine_chunks()
            self._waiting.clear()
            return
        self._deal()
        for part in self._parts:
            if part is None:
                continue
            if part.rows <= self._memory_rows or self._bits + 2 * _FANOUT_BITS > KEY_BITS:
                yield pa.concat_tables(part).combine_chunks()
            else:
                smaller = Partitions(
                    self._schema.remove(len(self._schema) - 1),
                    memory_rows=self._memory_rows,
                    bits=self._bits + _FANOUT_BITS,
                )
                for table in part:
                    smaller._add(table)
                yield from smaller
            part.close()

    def _deal(self) -> None:
        import numpy as np
        import pyarrow as pa

        if self._parts is None:
            self._parts = [None] * _FANOUT
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting.clear()
        self._waiting_rows = 0
        numbers = table["key"].to_numpy() >> (KEY_BITS - self._bits - _FANOUT_BITS) & (_FANOUT - 1)
        order = np.argsort(numbers, kind="stable")
        table = table.take(pa.array(order))
        edges = np.searchsorted(numbers[order], np.arange(_FANOUT + 1))
        for number, (start, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            if start < end:
                part = self._parts[number] or SpooledTables(self._schema, SPOOL_BYTES // _FANOUT)
                part.add(table.slice(start, end - start))
                self._parts[number] = part


class Cursor:
    """Reads partitions in the order of their column `row`, whose values grow with the keys."""

    def __init__(self, partitions: Iterable[pa.Table], schema: pa.Schema) -> None:
        self._partitions = iter(partitions)
        self._schema = schema
        self._table: pa.Table | None = None

    def take(self, end: int) -> pa.Table:
        """Return the next rows, up to row number `end`."""
        import numpy as np
        import pyarrow as pa

        taken = [self._schema.empty_table()]
        while (table := self._table if self._table is not None else self._sorted()) is not None:
            count = int(np.searchsorted(table["row"].to_numpy(), end))
            taken.append(table.slice(0, count).select(self._schema.names))
            self._table = table.slice(count) if count < table.num_rows else None
            if self._table is not None:
                break
        return pa.concat_tables(taken).combine_chunks()

    def _sorted(self) -> pa.Table | None:
        import numpy as np
        import pyarrow as pa

        table = next(self._partitions, None)
        return None if table is None else table.take(pa.array(np.argsort(table["row"].to_numpy(), kind="stable")))
