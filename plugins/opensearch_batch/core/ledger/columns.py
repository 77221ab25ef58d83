"""Operations on whole columns of the ledger's rows."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


def are_any_of(states: npt.NDArray[np.uint8], some: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return which states are some of the states."""
    import numpy as np

    is_one = np.zeros(1 << 8, bool)
    is_one[list(some)] = True
    found: npt.NDArray[np.bool_] = is_one[states]
    return found


def same_values(one: pa.ChunkedArray, other: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows have the same value; null is the same as null."""
    import pyarrow.compute as pc

    equal = pc.fill_null(pc.equal(one, other), fill_value=False)
    return pc.or_(equal, pc.and_(pc.is_null(one), pc.is_null(other))).to_numpy()  # type: ignore[no-any-return] # no types


def same_lists(one: pa.ChunkedArray, other: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows have the same digests in the same order."""
    import numpy as np
    import pyarrow.compute as pc

    if all(pc.all(pc.equal(pc.list_value_length(lists), 1)).as_py() for lists in (one, other)):
        return same_values(pc.list_flatten(one), pc.list_flatten(other))
    return np.array([left == right for left, right in zip(one.to_pylist(), other.to_pylist(), strict=True)], bool)


def last_of_each(codes: npt.NDArray[np.int32], positions: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return for each code the last of the positions that have it, -1 for none."""
    import numpy as np

    last = np.full(count, -1, np.int64)
    last[codes[positions]] = positions
    return last


def hashes(ids: pa.ChunkedArray) -> npt.NDArray[np.uint32]:
    """Return a hash of each id."""
    import numpy as np
    import pyarrow as pa

    return np.fromiter(map(zlib.crc32, ids.cast(pa.binary()).to_numpy()), np.uint32, len(ids))
