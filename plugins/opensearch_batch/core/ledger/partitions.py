"""Tables that may be larger than memory: rows are partitioned by a key on disk, and partitions are read one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from opensearch_batch.core.storage.temporary import SPOOL_BYTES, CollectedSpool

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

PARTITIONS = 64


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


class Partitions:
    """Rows partitioned by their keys: rows with the same key are in the same partition, which is a series of tables.

    Up to `memory_bytes` stay in memory, as one partition.
    """

    def __init__(self, schema: pa.Schema, *, memory_bytes: int) -> None:
        self._schema = schema
        self._memory_bytes = memory_bytes
        self._waiting: list[pa.Table] = []
        self._numbers: list[npt.NDArray[np.uint8]] = []
        self._waiting_bytes = 0
        self._parts: list[SpooledTables] = []

    def add(self, table: pa.Table, keys: npt.NDArray[np.uint32]) -> None:
        """Add rows with their keys, which are spread evenly."""
        import numpy as np

        self._waiting.append(table)
        self._numbers.append((keys % PARTITIONS).astype(np.uint8))
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes > self._memory_bytes:
            self._flush()

    def __iter__(self) -> Iterator[Iterable[pa.Table]]:
        """Yield the partitions, once; the rows of each keep their order."""
        if self._parts:
            self._flush()
        else:
            yield self._waiting
        while self._parts:
            yield self._parts.pop()

    def _flush(self) -> None:
        import numpy as np
        import pyarrow as pa

        if not self._parts:
            self._parts = [SpooledTables(self._schema, SPOOL_BYTES // PARTITIONS) for _ in range(PARTITIONS)]
        numbers = np.concatenate([np.empty(0, np.uint8), *self._numbers])
        order = np.argsort(numbers, kind="stable")
        table = pa.concat_tables([self._schema.empty_table(), *self._waiting]).take(order).combine_chunks()
        edges = np.searchsorted(numbers[order], np.arange(PARTITIONS + 1))
        for part, start, end in zip(self._parts, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            part.add(table.slice(start, end - start))
        self._waiting.clear()
        self._numbers.clear()
        self._waiting_bytes = 0
