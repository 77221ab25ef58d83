"""Builds the ledger's rows of records, one by one or many at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ledger.parquet_files import DIGEST_BYTES
from opensearch_batch.core.ledger.rows import RecordState, record_hash, rows_schema

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


class RowsBuilder:
    """Collects the rows of records in source order."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str | None, int, bytes, Sequence[bytes], int, int]] = []

    def __len__(self) -> int:
        """The number of rows since the last `table`."""
        return len(self._rows)

    def add(
        self,
        record_id: str,
        content: bytes,
        content_keys: Sequence[bytes] = (),
        *,
        line: int,
        routing: str | None = None,
        state: RecordState = RecordState.PENDING,
        line_bytes: int = 0,
    ) -> None:
        """Add a record; raise RecordRejected if the id or the routing is not valid Unicode."""
        for text in (record_id, routing):
            if text is not None and not text.isascii():
                _check_unicode(text)
        self._rows.append((record_id, routing, line, record_hash(content), content_keys, state, line_bytes))

    def table(self) -> pa.Table:
        """Return the rows as a table, and clear the builder."""
        ids, routings, lines, hashes, keys, states, sizes = zip(*self._rows, strict=True) if self._rows else [()] * 7
        self._rows.clear()
        return rows_table(
            ids=ids,
            routings=routings,
            lines=lines,
            hashes=b"".join(hashes),
            keys=b"".join(chain.from_iterable(keys)),
            key_offsets=list(accumulate(map(len, keys), initial=0)),
            states=states,
            line_bytes=sizes,
        )


def rows_table(
    *,
    ids: Sequence[str],
    routings: Sequence[str | None],
    lines: Sequence[int] | npt.NDArray[np.uint32],
    hashes: bytes,
    keys: bytes,
    key_offsets: Sequence[int] | npt.NDArray[np.int32],
    states: Sequence[int] | npt.NDArray[np.uint8],
    line_bytes: Sequence[int] | npt.NDArray[np.uint32],
) -> pa.Table:
    """Return rows with version 0; row i has the content keys from `key_offsets[i]` to `key_offsets[i + 1]`.

    Raises:
        UnicodeEncodeError: an id or a routing contains an unpaired surrogate.
    """
    import numpy as np
    import pyarrow as pa

    schema = rows_schema()
    list_type = schema.field("content_keys").type
    columns = [
        pa.array(ids, pa.string()),
        pa.array(routings, pa.string()),
        pa.array(lines, pa.uint32()),
        pa.array(np.zeros(len(ids), np.int64)),
        _digests(hashes),
        pa.ListArray.from_arrays(np.asarray(key_offsets, np.int32), _digests(keys), type=list_type),
        pa.array(states, pa.uint8()),
        pa.array(line_bytes, pa.uint32()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecordRejected(f"the id or the routing {text!r} contains an unpaired surrogate") from None


def _digests(digests: bytes) -> pa.Array:
    """Return concatenated digests as a column."""
    import pyarrow as pa

    count = len(digests) // DIGEST_BYTES
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), count, [None, pa.py_buffer(digests)])
