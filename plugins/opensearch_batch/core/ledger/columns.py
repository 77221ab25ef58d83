"""Operations on whole columns of the ledger's rows."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opensearch_batch.core.ledger.parquet_files import DIGEST_BYTES

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


def digest_words(column: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return digests as two numbers each."""
    return _words(column.combine_chunks())


def _words(digests: pa.Array) -> npt.NDArray[np.uint64]:
    import numpy as np

    if not len(digests):
        return np.empty((0, 2), np.uint64)
    content = np.frombuffer(digests.buffers()[1], np.uint8, len(digests) * DIGEST_BYTES, digests.offset * DIGEST_BYTES)
    return content.view(np.uint64).reshape(-1, 2)


def same_texts(one: pa.ChunkedArray, other: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows have the same text; null is the same as null."""
    import numpy as np
    import pyarrow.compute as pc

    if one.null_count == other.null_count == len(one):
        return np.ones(len(one), bool)
    equal = pc.fill_null(pc.equal(one, other), fill_value=False)
    both_null = pc.and_(pc.is_null(one), pc.is_null(other))
    return pc.or_(equal, both_null).to_numpy()  # type: ignore[no-any-return] # pyarrow ships no types


def same_lists(old: pa.ChunkedArray, new: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows have the same digests in the same order."""
    import numpy as np

    one, other = old.combine_chunks(), new.combine_chunks()
    starts, other_starts = one.offsets.to_numpy()[:-1], other.offsets.to_numpy()[:-1]
    lengths = np.diff(one.offsets.to_numpy())
    same: npt.NDArray[np.bool_] = lengths == np.diff(other.offsets.to_numpy())
    if len(same) and same.all() and (lengths == 1).all():
        # The usual case needs no positions.
        left = _words(one.values)[starts[0] : starts[0] + len(same)]
        right = _words(other.values)[other_starts[0] : other_starts[0] + len(same)]
        return (left == right).all(axis=1)  # type: ignore[no-any-return] # numpy's stubs
    rows = np.flatnonzero(same & (lengths > 0))
    if len(rows):
        counts = lengths[rows]
        firsts = np.cumsum(counts) - counts
        within = np.arange(int(counts.sum())) - np.repeat(firsts, counts)
        left = _words(one.values)[np.repeat(starts[rows], counts) + within]
        right = _words(other.values)[np.repeat(other_starts[rows], counts) + within]
        same[rows] = np.logical_and.reduceat((left == right).all(axis=1), firsts)
    return same


def last_of_each(codes: npt.NDArray[np.int32], positions: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return for each code the last of the positions that have it, -1 for none."""
    import numpy as np

    last = np.full(count, -1, np.int64)
    last[codes[positions]] = positions
    return last


def are_last_of_their_id(ids: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows are the last one with their id."""
    import numpy as np

    encoded = ids.combine_chunks().dictionary_encode()
    if len(encoded.dictionary) == len(ids):
        return np.ones(len(ids), bool)
    codes, positions = encoded.indices.to_numpy(), np.arange(len(ids))
    is_last: npt.NDArray[np.bool_] = last_of_each(codes, positions, len(encoded.dictionary))[codes] == positions
    return is_last


def positions_in(ids: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the position of each id in `among`, -1 if it is not there."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.index_in(ids, value_set=among), -1).to_numpy()  # type: ignore[no-any-return] # no types


def hashes(ids: pa.ChunkedArray) -> npt.NDArray[np.uint32]:
    """Return a hash of each id, the same in each process."""
    import numpy as np
    import pyarrow as pa

    return np.fromiter(map(zlib.crc32, ids.cast(pa.binary()).to_numpy()), np.uint32, len(ids))
