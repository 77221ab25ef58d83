"""Content keys, and indexes that find in which segment or open shard, and in which row, each key is.

An index is a file of entries in ascending order of their keys. It may cover many segments, so that a lookup of any
number of keys reads few files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from opensearch_batch.core.ledger.content_keys import KEY_BYTES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_ENTRY = [("high", "<u8"), ("low", "<u8"), ("source", "<i4"), ("row", "<u4")]
# The number, in an index, of a segment that is not in the store any more.
GONE = -1


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


def keys_of(column: pa.Array) -> Keys:
    """Return the keys in a column of fixed size."""
    start = column.offset * KEY_BYTES
    return Keys.of(column.buffers()[1].to_pybytes()[start : start + len(column) * KEY_BYTES])


class KeyIndex:
    """Entries in ascending order of their keys: a key, the number of its segment or open shard, and the row in it.

    Of equal keys, the highest source is the first, and then the lowest row.
    """

    def __init__(self, entries: NDArray[np.void]) -> None:
        self.entries = entries

    @classmethod
    def of(cls, sources: Sequence[Keys]) -> KeyIndex:
        """Return the index of the keys of each source, in the order of their rows."""
        import numpy as np

        indexes = []
        for number, keys in enumerate(sources):
            entries = np.empty(len(keys), _ENTRY)
            entries["high"], entries["low"] = keys.high, keys.low
            entries["source"], entries["row"] = number, np.arange(len(keys))
            indexes.append(cls(entries))
        return cls.merged(indexes)

    @classmethod
    def merged(cls, indexes: Sequence[KeyIndex]) -> KeyIndex:
        """Return the entries of several indexes, whose sources have different numbers."""
        import numpy as np

        entries = np.concatenate([index.entries for index in indexes])
        return cls(entries[np.lexsort((entries["row"], -entries["source"], entries["low"], entries["high"]))])

    def __len__(self) -> int:
        return len(self.entries)

    def renumbered(self, numbers: Mapping[int, int]) -> KeyIndex:
        """Return the entries of some sources, in the same order, with the new number of each source."""
        import numpy as np

        new = np.full(max(self.entries["source"].max(initial=0), *numbers, 0) + 1, GONE, np.int32)
        new[list(numbers)] = list(numbers.values())
        sources = new[self.entries["source"]]
        entries = self.entries[sources != GONE]
        entries["source"] = sources[sources != GONE]
        return KeyIndex(entries)

    def rows_of(self, source: int) -> Keys:
        """Return the keys of a source in the order of their rows."""
        import numpy as np

        entries = self.entries[self.entries["source"] == source]
        entries = entries[np.argsort(entries["row"])]
        return Keys(entries["high"], entries["low"])

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Return the first entry of each key, -1 for a key that is not in the index."""
        import numpy as np

        found = np.full(len(keys), -1, np.int64)
        if not len(self) or not len(keys):
            return found
        all_high, all_low = (np.ascontiguousarray(self.entries[half]) for half in ("high", "low"))
        # Sorted queries walk through the index instead of jumping in it; a stable sort of sorted ones costs little.
        order = np.argsort(keys.high, kind="stable")
        high, low = keys.high[order], keys.low[order]
        start = np.searchsorted(all_high, high)
        nearest = np.minimum(start, len(self) - 1)
        same_high = all_high[nearest] == high
        same = same_high & (all_low[nearest] == low)
        found[order[same]] = nearest[same]
        # Two keys hardly ever share their first half, but then the answer of one must not be taken for the other's.
        for query in np.flatnonzero(same_high & ~same):
            end = int(np.searchsorted(all_high, high[query], "right"))
            place = int(start[query] + np.searchsorted(all_low[start[query] : end], low[query]))
            if place < end and all_low[place] == low[query]:
                found[order[query]] = place
        return found
