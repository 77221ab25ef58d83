"""Content keys as arrays, and indexes that find in which segment or open shard, and in which row, each key is.

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
    from numpy.typing import ArrayLike, NDArray

    # Strings of `KEY_BYTES` bytes. A single item is not a key, because numpy leaves out zero bytes at its end.
    Keys = NDArray[np.bytes_]

_KEY = f"S{KEY_BYTES}"
# The number, in an index, of a segment that is not in the store any more.
GONE = -1


def keys_of(keys: bytes | Iterable[bytes]) -> Keys:
    """Return keys as an array; as bytes, they follow each other without a separator."""
    import numpy as np

    return np.frombuffer(keys if isinstance(keys, bytes) else b"".join(keys), _KEY)


def column_keys(column: pa.Array) -> Keys:
    """Return the keys in a column of fixed size without nulls."""
    import numpy as np

    return np.frombuffer(column.buffers()[1] or b"", _KEY)[column.offset : column.offset + len(column)]


def row_keys(rows: pa.Table) -> Keys:
    """Return the content keys of rows of the ledger, one after the other."""
    import pyarrow.compute as pc

    return column_keys(pc.list_flatten(rows["content_keys"]).combine_chunks())


def split(keys: Keys) -> list[bytes]:
    """Return the bytes of each key."""
    content = keys.tobytes()
    return [content[start : start + KEY_BYTES] for start in range(0, len(content), KEY_BYTES)]


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

        return cls.merged([cls(_entries(keys, number, np.arange(len(keys)))) for number, keys in enumerate(sources)])

    @classmethod
    def merged(cls, indexes: Sequence[KeyIndex]) -> KeyIndex:
        """Return the entries of several indexes; the sources of each have higher numbers than those before."""
        import numpy as np

        entries = np.concatenate([_entries((), 0, ()), *(index.entries for index in reversed(indexes))])
        return cls(entries[np.argsort(entries["key"], kind="stable")])

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
        keys: Keys = entries["key"][np.argsort(entries["row"])]
        return keys

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Return the first entry of each key, -1 for a key that is not in the index."""
        import numpy as np

        positions = np.full(len(keys), -1, np.int64)
        if len(self):
            # A search for sorted keys walks through the index instead of jumping in it.
            order = np.argsort(keys)
            stored = np.ascontiguousarray(self.entries["key"])
            nearest = np.minimum(np.searchsorted(stored, keys[order]), len(self) - 1)
            positions[order] = np.where(stored[nearest] == keys[order], nearest, -1)
        return positions


def _entries(keys: Keys | Sequence[bytes], source: int, rows: ArrayLike) -> NDArray[np.void]:
    import numpy as np

    entries = np.empty(len(keys), [("key", _KEY), ("source", "<i4"), ("row", "<u4")])
    entries["key"], entries["source"], entries["row"] = keys, source, rows
    return entries
