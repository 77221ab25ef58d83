"""The new and changed records of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opensearch_batch.core.types.object_info import ObjectInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from opensearch_batch.core.ledger.key_index import Keys


class ChangedRecords(NamedTuple):
    """The new and changed records of objects, as columns in the order of the objects and their lines.

    With passthrough, the columns contain all records of the objects; `is_changed` is true for the new and changed ones.
    The records of object i are those from `starts[i]` to `starts[i + 1]`; an object without an ETag cannot be read any
    more. `line_bytes` is the ledger column of this name.
    """

    objects: list[ObjectInfo]
    starts: npt.NDArray[np.int64]
    lines: npt.NDArray[np.uint32]
    keys: Keys
    line_bytes: npt.NDArray[np.uint32]
    is_changed: npt.NDArray[np.bool_]

    def is_readable(self) -> npt.NDArray[np.bool_]:
        """Return which records can be read."""
        import numpy as np

        return np.repeat(np.array([bool(item.etag) for item in self.objects], bool), np.diff(self.starts))

    def counts(self) -> list[int]:
        """Return the number of new and changed records of each object."""
        import numpy as np

        totals = np.concatenate(([0], np.cumsum(self.is_changed)))
        counts: list[int] = np.diff(totals[self.starts]).tolist()
        return counts

    def origins(self, positions: npt.NDArray[np.int64]) -> list[tuple[str, int]]:
        """Return object and line of the records at these positions."""
        import numpy as np

        objects = np.searchsorted(self.starts, positions, side="right") - 1
        lines = self.lines[positions].tolist()
        return [(self.objects[at].uri, line) for at, line in zip(objects.tolist(), lines, strict=True)]
