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
    """The new and changed records of an object: their line numbers and content keys.

    With passthrough, the object has all its records, and `is_changed` is true for the new and changed ones.
    """

    item: ObjectInfo
    lines: npt.NDArray[np.uint32]
    keys: Keys
    is_changed: npt.NDArray[np.bool_]


class RecordKeys(NamedTuple):
    """The records of one object, as columns: line number, content key, source of the prediction, code of the key.

    `sources` is as in `Located`, and `codes` as in `absent_codes`.
    """

    lines: npt.NDArray[np.uint32]
    keys: Keys
    sources: npt.NDArray[np.int32]
    codes: npt.NDArray[np.int64]

    def key(self, position: int) -> bytes:
        """Return the key of a record."""
        return self.keys[position : position + 1].tobytes()

    def select(self, mask: npt.NDArray[np.bool_]) -> RecordKeys:
        """Return the records for which `mask` is true."""
        return RecordKeys(self.lines[mask], self.keys[mask], self.sources[mask], self.codes[mask])


def absent_codes(located: Located) -> tuple[npt.NDArray[np.int64], int]:
    """Number the distinct absent keys; return the number of each key (-1 if not absent), and how many there are."""
    import numpy as np

    codes, is_absent = np.full(len(located.keys), -1, np.int64), located.source == ABSENT
    distinct, codes[is_absent] = np.unique(located.keys[is_absent], return_inverse=True)
    return codes, len(distinct)
