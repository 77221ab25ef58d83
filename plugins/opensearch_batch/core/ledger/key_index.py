"""Content keys, and indexes that find which of many keys a segment or an open shard has, and in which row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from opensearch_batch.core.errors import AnswersUnusable
from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.parquet_files import StoreFile, upload
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

KEY, ROW = "content_key", "row"
GROUP_ROWS = 65_536


class Keys:
    """Content keys as pairs of unsigned integers, which have the order of the keys' bytes."""

    def __init__(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> None:
        self.high, self.low = high, low

    @classmethod
    def of(cls, keys: bytes | Iterable[bytes]) -> Keys:
        """Return keys; as bytes, they follow each other without a separator."""
        import numpy as np

        content = keys if isinstance(keys, bytes) else b"".join(keys)
        words = np.frombuffer(content, ">u8").reshape(-1, KEY_BYTES // 8).astype(np.uint64)
        return cls(words[:, 0].copy(), words[:, 1].copy())

    def __len__(self) -> int:
        return len(self.high)

    def take(self, positions: NDArray[np.int64]) -> Keys:
        """Return the keys at these positions."""
        return Keys(self.high[positions], self.low[positions])

    def to_bytes(self) -> bytes:
        """Return the keys, one after the other."""
        import numpy as np

        return np.stack((self.high, self.low), axis=1).astype(">u8").tobytes()

    def split(self) -> list[bytes]:
        """Return the bytes of each key."""
        content = self.to_bytes()
        return [content[start : start + KEY_BYTES] for start in range(0, len(content), KEY_BYTES)]

    def first_of_each(self) -> NDArray[np.int64]:
        """Return the position of the first of each distinct key, in ascending order of the keys."""
        import numpy as np

        order = np.lexsort((self.low, self.high))
        high, low = self.high[order], self.low[order]
        first = np.ones(len(order), bool)
        first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        return order[first]


class KeyIndex:
    """Distinct keys in ascending order, each with its row."""

    def __init__(self, keys: Keys, rows: NDArray[np.uint32]) -> None:
        self.keys, self.rows = keys, rows

    @classmethod
    def of(cls, keys: Keys) -> KeyIndex:
        """Return the index of keys in the order of their rows; the first row of a repeated key counts."""
        import numpy as np

        rows = keys.first_of_each()
        return cls(keys.take(rows), rows.astype(np.uint32))

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Return the row of each key, -1 for a key that is not in the index."""
        import numpy as np

        found = np.full(len(keys), -1, np.int64)
        if not len(self) or not len(keys):
            return found
        # Sorted queries walk through the index instead of jumping in it.
        order = np.argsort(keys.high)
        high, low = keys.high[order], keys.low[order]
        start = np.searchsorted(self.keys.high, high)
        nearest = np.minimum(start, len(self) - 1)
        same_high = self.keys.high[nearest] == high
        same = same_high & (self.keys.low[nearest] == low)
        found[order[same]] = self.rows[nearest[same]]
        # Two keys hardly ever share their first half, but then the answer of one must not be taken for the other's.
        for query in np.flatnonzero(same_high & ~same):
            end = int(np.searchsorted(self.keys.high, high[query], "right"))
            for place in range(int(start[query]), end):
                if self.keys.low[place] == low[query]:
                    found[order[query]] = self.rows[place]
        return found


def write_index(objects: Objects, uri: str, index: KeyIndex) -> None:
    """Write an index."""
    import pyarrow as pa

    _write(objects, uri, pa.table({KEY: key_array(index.keys.to_bytes()), ROW: pa.array(index.rows)}))


def read_index(objects: Objects, uri: str, segment: str, name: str) -> KeyIndex:
    """Return the index of the segment of this name; if it is lost, the index is computed from the segment.

    Raises:
        AnswersUnusable: the segment is missing or damaged, too.
    """
    try:
        keys, rows = _read(objects, uri, name, KEY, ROW)
    except AnswersUnusable:
        return KeyIndex.of(read_keys(objects, segment, name))
    return KeyIndex(keys_of(keys), rows.to_numpy())


def write_keys(objects: Objects, uri: str, keys: Keys) -> None:
    """Write keys in their own order."""
    import pyarrow as pa

    _write(objects, uri, pa.table({KEY: key_array(keys.to_bytes())}))


def read_keys(objects: Objects, uri: str, name: str) -> Keys:
    """Return the keys of the segment or open shard of this name, in its order.

    Raises:
        AnswersUnusable: the file is missing or damaged.
    """
    (keys,) = _read(objects, uri, name, KEY)
    return keys_of(keys)


def key_array(keys: bytes) -> pa.Array:
    """Return keys, which follow each other, as a column."""
    import pyarrow as pa

    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(KEY_BYTES), len(keys) // KEY_BYTES, [None, pa.py_buffer(keys)]
    )


def keys_of(column: pa.Array) -> Keys:
    """Return the keys in a column."""
    start = column.offset * KEY_BYTES
    return Keys.of(column.buffers()[1].to_pybytes()[start : start + len(column) * KEY_BYTES])


def _write(objects: Objects, uri: str, table: pa.Table) -> None:
    with upload(objects, uri, table.schema, {}) as file:
        file.write(table, group_rows=GROUP_ROWS)


def _read(objects: Objects, uri: str, name: str, *columns: str) -> list[pa.Array]:
    file = StoreFile(objects, uri, name)
    try:
        return file.read(*columns)
    finally:
        file.close()
