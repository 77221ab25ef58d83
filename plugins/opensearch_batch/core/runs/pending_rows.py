"""Rows of the ledger as a run will commit them, once its records have verdicts; deletions that a run repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from opensearch_batch.core.ingest.request import OpType
from opensearch_batch.core.ledger.classes import WRITTEN
from opensearch_batch.core.ledger.difference import Difference
from opensearch_batch.core.ledger.head import Entry, Head
from opensearch_batch.core.ledger.key_index import keys_of, row_keys
from opensearch_batch.core.ledger.rows import LINE_BYTES, RowsWriter, are_any_of
from opensearch_batch.core.ledger.staged import deletions_tables, read_deletions
from opensearch_batch.core.sharding.changed_records import ChangedRecords
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.object_info import ObjectInfo

if TYPE_CHECKING:
    import pyarrow as pa


class PendingRows:
    """Writes the rows of a diff, and collects the records to stage.

    Without a folder, no rows are written.
    """

    def __init__(self, objects: Objects, folder: str | None) -> None:
        self._writer = None if folder is None else RowsWriter(objects, folder)

    def collect(
        self, result: Difference, infos: Mapping[str, ObjectInfo], *, passthrough: bool = False
    ) -> ChangedRecords:
        """Write all rows; return the new and changed records.

        With `passthrough`, all records of their objects are returned.
        """
        import numpy as np
        import pyarrow as pa

        none = np.empty(0, np.uint32)
        parts: dict[str, list[tuple[Any, ...]]] = {}
        for part in result.objects():
            if self._writer is not None:
                self._writer.add(part.uri, part.rows)
            is_changed = are_any_of(part.classes, WRITTEN)
            # Rows of records that left their object in append mode have the line 0.
            chosen = part.rows["line"].to_numpy() > 0 if passthrough else is_changed
            if chosen.any():
                rows = part.rows.select(["line", "content_keys", LINE_BYTES]).filter(pa.array(chosen))
                columns = rows["line"].to_numpy(), row_keys(rows), rows[LINE_BYTES].to_numpy(), is_changed[chosen]
                parts.setdefault(part.uri, []).append(columns)
        changed = {uri: each for uri, each in parts.items() if any(columns[-1].any() for columns in each)}
        lengths = [sum(len(columns[0]) for columns in each) for each in changed.values()]
        empty = none, keys_of(b""), none, np.empty(0, bool)
        together = zip(empty, *(columns for each in changed.values() for columns in each), strict=True)
        starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        return ChangedRecords([infos[uri] for uri in changed], starts, *map(np.concatenate, together))

    def entries(self, infos: Mapping[str, ObjectInfo], head: Head) -> dict[str, Entry]:
        """Return the objects with pending rows."""
        entries = dict[str, Entry]()
        for uri, part in self._writer.close().items() if self._writer is not None else ():
            before = head.objects.get(uri)
            entries[uri] = Entry(
                **msgspec.structs.asdict(part),
                etag=infos[uri].etag,
                modified=infos[uri].modified,
                stale=before is not None and before.stale,
            )
        return entries


def repeated_deletions(objects: Objects, uri: str, result: Difference, op_type: OpType) -> Iterator[pa.Table]:
    """Yield the deletions of an earlier run that failed.

    Without external versions, such a deletion would delete a document that this run writes, so it is left out.
    """
    import pyarrow as pa

    written = set[tuple[str, str | None]]()
    if op_type != "index":
        deleted = {(each.id, each.routing) for each in read_deletions(objects, uri)}
        for part in result.objects():
            rows = part.rows.filter(pa.array(are_any_of(part.classes, WRITTEN)))
            written |= deleted.intersection(zip(rows["id"].to_pylist(), rows["routing"].to_pylist(), strict=True))
    for table in deletions_tables(objects, uri):
        addresses = zip(table["id"].to_pylist(), table["routing"].to_pylist(), strict=True)
        yield table.filter(pa.array([address not in written for address in addresses], pa.bool_()))
