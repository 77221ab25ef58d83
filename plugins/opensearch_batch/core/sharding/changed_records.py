"""The new and changed records of a run, and their content keys."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.store_head import ABSENT, Located
from opensearch_batch.core.types.object_info import ObjectInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class ChangedObject(NamedTuple):
    """The new and changed records of an object: their lines in the ledger, and their content keys.

    An object that may be submitted unchanged has all its lines, and `wanted` tells which ones are new or changed.
    """

    item: ObjectInfo
    lines: npt.NDArray[np.uint32]
    keys: bytes
    wanted: npt.NDArray[np.bool_] | None = None


class RecordKeys(NamedTuple):
    """The records of one object: their lines and keys, where their predictions are, and the codes of absent keys."""

    lines: npt.NDArray[np.uint32]
    keys: bytes
    sources: list[int]
    codes: list[int]

    @classmethod
    def of(cls, each: ChangedObject, sources: npt.NDArray[np.int32], codes: npt.NDArray[np.int64]) -> RecordKeys:
        """Return the records of an object."""
        return cls(each.lines, each.keys, sources.tolist(), codes.tolist())

    def key(self, at: int) -> bytes:
        """Return the key of a record."""
        return self.keys[at * KEY_BYTES : (at + 1) * KEY_BYTES]

    def only(self, wanted: npt.NDArray[np.bool_]) -> RecordKeys:
        """Return some of the records."""
        chosen = wanted.tolist()
        keys = b"".join(self.key(at) for at, is_wanted in enumerate(chosen) if is_wanted)
        return RecordKeys(
            self.lines[wanted], keys, list(compress(self.sources, chosen)), list(compress(self.codes, chosen))
        )


def absent_codes(located: Located) -> tuple[npt.NDArray[np.int64], int]:
    """Return a number for each distinct key that is absent, -1 for the others; and how many distinct ones there are."""
    import numpy as np

    codes = np.full(len(located.keys), -1, np.int64)
    positions = np.flatnonzero(located.source == ABSENT)
    keys = located.keys.take(positions)
    order = np.lexsort((keys.low, keys.high))
    high, low = keys.high[order], keys.low[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    codes[positions[order]] = np.cumsum(is_first) - 1
    return codes, int(is_first.sum())
