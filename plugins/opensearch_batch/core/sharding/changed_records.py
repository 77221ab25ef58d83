"""The new and changed records of a run, and their content keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opensearch_batch.core.ledger.store_head import ABSENT, Located
from opensearch_batch.core.types.object_info import ObjectInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from opensearch_batch.core.ledger.key_index import Keys


class ChangedObject(NamedTuple):
    """The new and changed records of an object: their lines in the ledger, and their content keys.

    An object that may be submitted unchanged has all its records, and `wanted` tells which ones are new or changed.
    """

    item: ObjectInfo
    lines: npt.NDArray[np.uint32]
    keys: Keys
    wanted: npt.NDArray[np.bool_]


class RecordKeys(NamedTuple):
    """The records of one object: their lines and keys, where their predictions are, and the codes of absent keys."""

    lines: npt.NDArray[np.uint32]
    keys: Keys
    sources: npt.NDArray[np.int32]
    codes: npt.NDArray[np.int64]

    def key(self, at: int) -> bytes:
        """Return the key of a record."""
        return self.keys[at : at + 1].tobytes()

    def only(self, wanted: npt.NDArray[np.bool_]) -> RecordKeys:
        """Return some of the records."""
        return RecordKeys(self.lines[wanted], self.keys[wanted], self.sources[wanted], self.codes[wanted])


def absent_codes(located: Located) -> tuple[npt.NDArray[np.int64], int]:
    """Return a number for each distinct key that is absent, -1 for the others; and how many distinct ones there are."""
    import numpy as np

    codes, is_absent = np.full(len(located.keys), -1, np.int64), located.source == ABSENT
    distinct, codes[is_absent] = np.unique(located.keys[is_absent], return_inverse=True)
    return codes, len(distinct)
