"""A source, the ledger and the index, twice: by the ledger's code, and as plain dictionaries that say what is right."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import pyarrow as pa

from opensearch_batch.core.ledger.classes import Deletion, DiffCounts, RecordClass
from opensearch_batch.core.ledger.diff import diff, listed_changes
from opensearch_batch.core.ledger.difference import Difference, ObjectRows
from opensearch_batch.core.ledger.head import Entry, Head
from opensearch_batch.core.ledger.resolve import Mode
from opensearch_batch.core.ledger.rows import RecordState, RowsReader, RowsWriter, rows_schema, with_verdicts
from opensearch_batch.core.ledger.rows_builder import RowsBuilder
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.core.memory_objects import MemoryObjects

WRITTEN = (RecordClass.NEW, RecordClass.INPUT_CHANGED, RecordClass.OTHER_CHANGED)


class Record(NamedTuple):
    """A record: the model reads `text` only. A deleted one is a tombstone."""

    id: str
    text: str = ""
    price: int = 0
    routing: str | None = None
    deleted: bool = False

    @property
    def keys(self) -> list[bytes]:
        """One key for each word."""
        return [] if self.deleted else [word.encode().rjust(16, b"\0") for word in self.text.split()]


class Source(NamedTuple):
    """An object of the source; an unreadable one has rows whose id is not known."""

    etag: str
    modified: float
    records: Sequence[Record]
    unreadable: bool = False


class Known(NamedTuple):
    """A row of the ledger as it should be.

    A row that `left` its object in append mode, or an unreadable object, has no record any more. It is `unknown` which
    record the document of a row is of that left before it was written, or written again.
    """

    record: Record
    line: int
    state: RecordState
    version: int
    left: bool = False
    unknown: bool = False


Place = tuple[str, int]


class Ledger:
    """Runs the ledger's code, and writes and deletes documents as an ingest does.

    Args:
        mode: as of the diff.
        limits: memory limits of the diff.
        part_rows: objects are read in parts of this size.
    """

    def __init__(self, mode: Mode, *, part_rows: int = 1000, pack_rows: int = 6, **limits: int) -> None:
        self.mode = mode
        self.head = Head()
        self.index: dict[tuple[str, str | None], Record] = {}
        self.store = MemoryObjects()
        self.operations = 0
        self.opened: set[str] = set()
        self._limits = limits
        self._part_rows = part_rows
        self._pack_rows = pack_rows

    def run(self, source: Mapping[str, Source], version: int, pending: Collection[str] = ()) -> Difference:
        """Index what changed; the writes of `pending` ids get no verdict."""
        listed = [ObjectInfo(uri, 1, item.etag, item.modified) for uri, item in sorted(source.items())]
        changes = listed_changes(self.head.objects, listed, self.mode)
        self.opened = {item.uri for item in changes.changed}
        result = diff(
            self._parts(changes.changed, source),
            self.head.objects,
            RowsReader(self.store).read,
            mode=self.mode,
            vanished=changes.vanished,
            unreadable={uri for uri, item in source.items() if item.unreadable},
            **self._limits,
        )
        for table in result.deletions():
            for row in table.to_pylist():
                self.operations += 1
                self.index.pop((row["id"], row["routing"]), None)
        self._apply(result, source, version, pending, changes.vanished)
        return result

    def rows(self, uri: str) -> list[dict[str, object]]:
        """The rows of an object."""
        entry = self.head.objects[uri]
        tables = [rows_schema().empty_table(), *RowsReader(self.store).read(entry, ())]
        return pa.concat_tables(tables).to_pylist()  # type: ignore[no-any-return] # pyarrow ships no types

    def _parts(
        self, changed: Sequence[ObjectInfo], source: Mapping[str, Source]
    ) -> Iterator[tuple[ObjectInfo, pa.Table]]:
        for item in changed:
            table = table_of(source[item.uri].records)
            for start in range(0, max(table.num_rows, 1), self._part_rows):
                yield item, table.slice(start, self._part_rows)

    def _apply(
        self,
        result: Difference,
        source: Mapping[str, Source],
        version: int,
        pending: Collection[str],
        vanished: Sequence[str],
    ) -> None:
        writer = RowsWriter(self.store, "rows", pack_rows=self._pack_rows)
        for part in result.objects():
            writer.add(part.uri, self._written(part, source, version, pending))
        objects = {uri: entry for uri, entry in self.head.objects.items() if uri not in vanished}
        for uri, written in writer.close().items():
            earlier = objects.get(uri)
            item = source.get(uri) if uri in self.opened else None
            objects[uri] = Entry(
                written.rows,
                written.first,
                written.count,
                written.states,
                etag="" if "pending" in written.states else item.etag if item else earlier.etag if earlier else "",
                modified=item.modified if item else earlier.modified if earlier else 0,
                stale=not item and earlier is not None and earlier.stale,
            )
        self.head = msgspec.structs.replace(self.head, objects=objects)

    def _written(
        self, part: ObjectRows, source: Mapping[str, Source], version: int, pending: Collection[str]
    ) -> pa.Table:
        states, versions = part.rows["state"].to_numpy().copy(), part.rows["version"].to_numpy().copy()
        for at, row in enumerate(part.rows.to_pylist()):
            kind = RecordClass(part.classes[at])
            if kind is RecordClass.TOMBSTONE:
                assert states[at] == RecordState.TOMBSTONE
                versions[at] = version
            if kind in WRITTEN:
                assert states[at] == RecordState.PENDING
                # A record of an object that is not listed any more cannot be read.
                if row["id"] not in pending and part.uri in source:
                    record = source[part.uri].records[row["line"] - 1]
                    self.operations += 1
                    self.index[record.id, record.routing] = record
                    states[at], versions[at] = RecordState.INDEXED, version
        return with_verdicts(part.rows, states, versions)


def table_of(records: Sequence[Record]) -> pa.Table:
    """The rows of records, as `prepare` makes them."""
    builder = RowsBuilder()
    for line, record in enumerate(records, 1):
        state = RecordState.TOMBSTONE if record.deleted else RecordState.PENDING
        content = msgspec.json.encode(record)
        builder.add(record.id, content, record.keys, line=line, routing=record.routing, state=state)
    return builder.table()


class Model:
    """What the ledger should have after each run, by comparing everything with everything."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.rows: dict[str, list[Known]] = {}
        self.modified: dict[str, float] = {}
        self.stale: set[str] = set()

    def winners(self) -> dict[str, Place]:
        """Where the row that wins is, for each id."""
        order = sorted(self.rows, key=lambda uri: (self.modified[uri] if self.mode == "append" else 0, uri))
        rows = [(uri, at, row) for uri in order for at, row in enumerate(self.rows[uri])]
        if self.mode == "snapshot":
            rows.sort(key=lambda each: not each[2].left)
        return {row.record.id: (uri, at) for uri, at, row in rows if not (row.left and _is_loser(row))}

    def run(
        self, source: Mapping[str, Source], opened: Collection[str], version: int, pending: Collection[str]
    ) -> DiffCounts:
        """Apply a run, and return the counts that it should have."""
        before = {
            row.record.id: (row, uri in self.stale)
            for uri, rows in self.rows.items()
            for row in rows
            if not _is_loser(row)
        }
        self._read(source, opened)
        counts = DiffCounts(before=sum(row.state != RecordState.TOMBSTONE for row, _ in before.values()))
        winners = self.winners()
        for uri, rows in self.rows.items():
            for at, row in enumerate(rows):
                is_winner = winners.get(row.record.id) == (uri, at)
                was_winner = uri not in opened and not _is_loser(row)
                known = before.get(row.record.id)
                if not is_winner:
                    counts.duplicate += uri in opened and not row.left
                    counts.demoted += was_winner
                    rows[at] = row._replace(state=_loser(row.record), version=0)
                elif not row.left and not was_winner:
                    kind = _class(known, row.record)
                    counts.promoted += uri not in opened
                    setattr(counts, kind.name.lower(), getattr(counts, kind.name.lower()) + 1)
                    is_pending = row.record.id in pending or uri not in source
                    rows[at] = _decided(row, kind, known, version, is_pending=is_pending)
                elif row.left and uri in opened:
                    counts.retained += 1
        for uri in opened:
            self.rows[uri] = [row for row in self.rows[uri] if not (row.left and _is_loser(row))]
        after = {row.record.id for rows in self.rows.values() for row in rows if not _is_loser(row)}
        tombstones = {
            row.record.id for rows in self.rows.values() for row in rows if row.state == RecordState.TOMBSTONE
        }
        for id_, (row, _) in before.items():
            if row.state != RecordState.TOMBSTONE:
                counts.removed += id_ not in after or id_ in tombstones
                counts.removed_by_tombstone += id_ in tombstones
        counts.kept = counts.before - counts.removed
        return counts

    def documents(self) -> dict[tuple[str, str | None], Record]:
        """The documents that the index should have, by id and routing; without those of `undecided` ids."""
        found = [self.rows[uri][at].record for uri, at in self.winners().values()]
        undecided = self.undecided()
        return {
            (record.id, record.routing): record for record in found if not record.deleted and record.id not in undecided
        }

    def undecided(self) -> set[str]:
        """The ids whose last write has no verdict."""
        rows = (self.rows[uri][at] for uri, at in self.winners().values())
        return {row.record.id for row in rows if row.state == RecordState.PENDING or row.unknown}

    def _read(self, source: Mapping[str, Source], opened: Collection[str]) -> None:
        """Replace the rows of the objects that were read, and drop those of objects that are gone."""
        for uri in list(self.rows):
            if self.mode == "snapshot" and source and uri not in source:
                del self.rows[uri]
        for uri in opened:
            records = source[uri].records
            ids = {record.id for record in records}
            left = [
                _after_leaving(row, is_stale=uri in self.stale)
                for row in self.rows.get(uri, ())
                if not _is_loser(row) and row.record.id not in ids and self._stays(row, source[uri])
            ]
            new = [Known(record, line, RecordState.PENDING, 0) for line, record in enumerate(records, 1)]
            self.rows[uri], self.modified[uri] = left + new, source[uri].modified
            self.stale.discard(uri)

    def _stays(self, row: Known, item: Source) -> bool:
        """Whether a row stays though its record left the object."""
        if self.mode == "append":
            return row.state != RecordState.PENDING or row.version > 0
        return item.unreadable and row.state != RecordState.TOMBSTONE


def _after_leaving(row: Known, *, is_stale: bool) -> Known:
    if row.state == RecordState.PENDING or is_stale:
        row = row._replace(unknown=True)
    if row.state == RecordState.PENDING:
        row = row._replace(state=RecordState.INDEXED)
    return row._replace(line=0, left=True)


def _is_loser(row: Known) -> bool:
    return row.state in (RecordState.DUPLICATE, RecordState.DUPLICATE_TOMBSTONE)


def _loser(record: Record) -> RecordState:
    return RecordState.DUPLICATE_TOMBSTONE if record.deleted else RecordState.DUPLICATE


def _class(known: tuple[Known, bool] | None, record: Record) -> RecordClass:
    state = known[0].state if known else None
    if record.deleted:
        standing = known and state == RecordState.TOMBSTONE and not known[1]
        return RecordClass.UNCHANGED if standing else RecordClass.TOMBSTONE
    if not known or state == RecordState.TOMBSTONE or (state == RecordState.PENDING and not known[0].version):
        return RecordClass.NEW
    if record.keys != known[0].record.keys:
        return RecordClass.INPUT_CHANGED
    if record != known[0].record or known[0].unknown or known[1] or state == RecordState.PENDING:
        return RecordClass.OTHER_CHANGED
    return RecordClass.UNCHANGED


def _decided(
    row: Known, kind: RecordClass, known: tuple[Known, bool] | None, version: int, *, is_pending: bool
) -> Known:
    if kind is RecordClass.UNCHANGED and known:
        return row._replace(state=known[0].state, version=known[0].version)
    if kind is RecordClass.TOMBSTONE:
        return row._replace(state=RecordState.TOMBSTONE, version=version)
    if is_pending:
        had_document = known and known[0].state != RecordState.TOMBSTONE
        return row._replace(state=RecordState.PENDING, version=known[0].version if known and had_document else 0)
    return row._replace(state=RecordState.INDEXED, version=version)


def deletions_of(result: Difference) -> list[tuple[str, str | None, int, Deletion]]:
    """The deletions, sorted by id."""
    rows = [row for table in result.deletions() for row in table.to_pylist()]
    return sorted((row["id"], row["routing"], row["version"], Deletion(row["reason"])) for row in rows)
