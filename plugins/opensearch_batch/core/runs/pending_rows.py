"""Rows of the ledger as a run will commit them, once its records have verdicts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.ledger.classes import DiffCounts, RecordClass
from opensearch_batch.core.ledger.columns import are_any_of
from opensearch_batch.core.ledger.difference import Difference, ObjectRows
from opensearch_batch.core.ledger.head import Entry, Head
from opensearch_batch.core.ledger.key_index import row_keys
from opensearch_batch.core.ledger.rows import RecordState, RowsWriter, with_verdicts
from opensearch_batch.core.sharding.changed_records import ChangedObject
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.object_info import ObjectInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

WRITTEN = (RecordClass.NEW, RecordClass.INPUT_CHANGED, RecordClass.OTHER_CHANGED)
TOMBSTONES = (RecordState.TOMBSTONE, RecordState.DUPLICATE_TOMBSTONE)


class PendingRows:
    """Writes the rows of a diff, and collects the records to stage.

    Args:
        objects: the store.
        folder: where the rows are written; None to write none.
    """

    def __init__(self, objects: Objects, folder: str | None) -> None:
        self.counts = DiffCounts()
        self._writer = None if folder is None else RowsWriter(objects, folder)

    def collect(
        self, result: Difference, infos: Mapping[str, ObjectInfo], *, passthrough: bool = False
    ) -> list[ChangedObject]:
        """Write all rows; return the objects with new or changed records.

        Args:
            result: the result of the diff.
            infos: the versions of the objects.
            passthrough: objects with new or changed records are returned with all their records.
        """
        self.counts = msgspec.structs.replace(result.counts)
        parts: dict[str, list[tuple[pa.Table, npt.NDArray[np.bool_]]]] = {}
        for part in result.objects():
            rows = self._without_keyless(part)
            if self._writer is not None:
                self._writer.add(part.uri, rows)
            wanted = are_any_of(part.classes, WRITTEN) & (rows["state"].to_numpy() == RecordState.PENDING)
            if passthrough or wanted.any():
                columns = rows.select(["line", "content_keys"])
                parts.setdefault(part.uri, []).append((columns, wanted) if passthrough else _only(columns, wanted))
        return [
            _changed_object(infos[uri], tables, passthrough=passthrough)
            for uri, tables in parts.items()
            if any(wanted.any() for _, wanted in tables)
        ]

    def entries(self, infos: Mapping[str, ObjectInfo], head: Head, left: Collection[str]) -> dict[str, Entry]:
        """Return the objects with pending rows; those that are left to the next run have no ETag."""
        entries = dict[str, Entry]()
        for uri, part in self._writer.close().items() if self._writer is not None else ():
            before = head.objects.get(uri)
            entries[uri] = Entry(
                **msgspec.structs.asdict(part),
                etag="" if uri in left else infos[uri].etag,
                modified=infos[uri].modified,
                stale=before is not None and before.stale,
            )
        return entries

    def _without_keyless(self, part: ObjectRows) -> pa.Table:
        """Return rows in which records that `prepare` rejected are dead, and count these in no class.

        Such a record has no content key. Its row exists so that its document is not taken for removed.
        """
        import numpy as np
        import pyarrow.compute as pc

        states = part.rows["state"].to_numpy()
        is_keyless = (pc.list_value_length(part.rows["content_keys"]).to_numpy() == 0) & ~are_any_of(states, TOMBSTONES)
        if not is_keyless.any():
            return part.rows
        counts: list[int] = np.bincount(part.classes[is_keyless], minlength=len(RecordClass)).tolist()
        for kind, count in zip(RecordClass, counts, strict=True):
            # Of rows that were not read, only those are counted that won over another row.
            if kind is RecordClass.KEPT or (kind is RecordClass.DUPLICATE and not part.opened):
                continue
            self.counts.add(kind, -count)
            self.counts.promoted -= 0 if part.opened else count
        states = np.where(is_keyless & (states == RecordState.PENDING), RecordState.DEAD, states).astype(np.uint8)
        return with_verdicts(part.rows, states, part.rows["version"].to_numpy())


def _only(columns: pa.Table, wanted: npt.NDArray[np.bool_]) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    import pyarrow as pa

    return columns.filter(pa.array(wanted)), wanted[wanted]


def _changed_object(
    item: ObjectInfo, parts: list[tuple[pa.Table, npt.NDArray[np.bool_]]], *, passthrough: bool
) -> ChangedObject:
    import numpy as np
    import pyarrow as pa

    rows, wanted = pa.concat_tables([table for table, _ in parts]), np.concatenate([each for _, each in parts])
    # Rows of records that left their object in append mode have the line 0.
    is_in_object = rows["line"].to_numpy() > 0
    rows = rows.filter(pa.array(is_in_object))
    return ChangedObject(item, rows["line"].to_numpy(), row_keys(rows), wanted[is_in_object] if passthrough else None)
