"""Tables that may be larger than memory: they are dealt by a key into partitions on disk, and read one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from opensearch_batch.core.storage.temporary import SPOOL_BYTES, CollectedSpool

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_PARTITIONS = 64


class SpooledTables:
    """Tables of one schema in a temporary file. Iterating yields them in order, without those that have no rows."""

    def __init__(self, schema: pa.Schema, memory_bytes: int = SPOOL_BYTES) -> None:
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
    """Rows dealt by keys into tables. Rows with the same key are in the same table; at most `memory_rows` rows are one.

    The keys are spread evenly over 32 bits.
    """

    def __init__(self, schema: pa.Schema, *, memory_rows: int) -> None:
        import pyarrow as pa

        self._schema = schema.append(pa.field("partition", pa.uint8()))
        self._memory_rows = memory_rows
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._parts: list[SpooledTables] = []

    def add(self, table: pa.Table, keys: npt.NDArray[np.uint32]) -> None:
        """Add rows with their keys."""
        import numpy as np
        import pyarrow as pa

        if table.num_rows:
            numbers = pa.array((keys % _PARTITIONS).astype(np.uint8))
            self._waiting.append(pa.Table.from_arrays([*table.columns, numbers], schema=self._schema))
            self._waiting_rows += table.num_rows
        if self._waiting_rows > self._memory_rows:
            self._deal()

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the tables, once; each is discarded when the next one is asked for."""
        import pyarrow as pa

        if not self._parts:
            yield pa.concat_tables([self._schema.empty_table(), *self._waiting]).combine_chunks()
            return
        self._deal()
        for part in self._parts:
            yield pa.concat_tables([self._schema.empty_table(), *part]).combine_chunks()
            part.close()

    def _deal(self) -> None:
        import numpy as np
        import pyarrow as pa

        if not self._parts:
            self._parts = [SpooledTables(self._schema, SPOOL_BYTES // _PARTITIONS) for _ in range(_PARTITIONS)]
        table = pa.concat_tables([self._schema.empty_table(), *self._waiting]).combine_chunks()
        self._waiting.clear()
        self._waiting_rows = 0
        numbers = table["partition"].to_numpy()
        order = np.argsort(numbers, kind="stable")
        table, edges = table.take(pa.array(order)), np.searchsorted(numbers[order], np.arange(_PARTITIONS + 1))
        for part, start, end in zip(self._parts, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            part.add(table.slice(start, end - start))
