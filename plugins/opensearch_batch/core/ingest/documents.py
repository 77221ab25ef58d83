"""Rows of all sources become documents: joined by id, mapped, or rejected with a reason; nothing falls between.

The order of what comes out depends on the sources and the request alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.formats.lines import Read, read_rows
from opensearch_batch.core.ingest.bulk import Item, lines_of
from opensearch_batch.core.ingest.join import MEMORY_BYTES, Group, Stream, join
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.ingest.spill import Keys, SeenKeys
from opensearch_batch.core.ingest.spill import digest as digest_of
from opensearch_batch.core.ingest.target import open_target
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.transform.field_map import FieldMap, Part
from opensearch_batch.core.transform.vectors import VectorRejected
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.row_errors import NO_ERRORS, RowErrors
from opensearch_batch.core.types.rows import Blank, Filtered, Keyed, Mapped, Rejected, Row, Source

Entry = Item | Rejected | Blank | Filtered
Place = Callable[[Row], tuple[str, int]]


class DocumentStream(Protocol):
    """Documents, and what is none, in an order that the sources alone decide; `read_bytes` counts what was read."""

    read_bytes: int

    def __iter__(self) -> Iterator[Entry]: ...


class DocumentFactory(Protocol):
    """Makes documents of rows."""

    @property
    def decisive(self) -> list[Any]:
        """What of it decides the result, any JSON: something else is another work."""

    def check(self, sources: Sequence[Source]) -> None:
        """Raise ConfigError when it cannot work with these sources."""

    def open(self, cluster: Cluster, sources: Sequence[Source]) -> tuple[Index, str | None]:
        """Return the index to write to, made if it is absent, and a remark about how.

        Raises:
            ConfigError: it cannot be made, or does not fit.
        """

    def documents(self, index: Index, sources: Sequence[Source], *, anew: bool) -> DocumentStream:
        """Return the documents of the sources; `anew` if nothing of them is written yet."""

    def indexes(self, index: Index) -> list[str]:
        """Return the names of the indexes that were written and can be refreshed."""

    def remark(self, counts: IngestCounts) -> str | None:
        """Return what a person should know of these counts."""


class Documents:
    """Makes the documents of a request.

    Args:
        request: what to put where.
        field_map: its compiled map.
        sources: what to read, in the order the map counts them.
        objects: where they lie.
        read: yields the rows of a source.
        row_errors: finds AI services' errors in rows.
        memory_bytes: how much may wait in memory for its partners in other sources.
        folder: where what passes that bound is put; a temporary folder of the system if None.
        place: which document of the user's a row comes from: what a document without an id is named by.
    """

    def __init__(
        self,
        request: IngestRequest,
        field_map: FieldMap,
        sources: Sequence[Source],
        *,
        objects: Objects,
        read: Read = read_rows,
        row_errors: RowErrors = NO_ERRORS,
        memory_bytes: int = MEMORY_BYTES,
        folder: Path | None = None,
        place: Place = lambda row: (row.uri, row.line),
    ) -> None:
        self._request = request
        self._map = field_map
        self._sources = sources
        self._objects = objects
        self._read = read
        self._row_error = row_errors.find
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._place = place
        self._strict = request.on_unmatched == "dead_letter" and len(sources) > 1
        self._refused = Keys()
        self.read_bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield the documents, and what is rejected or blank in its place."""
        if len(self._sources) == 1:
            yield from self._unjoined()
            return
        for entry in self._joined():
            yield self.entry(entry) if isinstance(entry, Group) else entry

    def keyed(self, row: Row) -> Keyed:
        """Read a row's values and the id it names.

        Raises:
            RecordRejected: it is no JSON object, or has no id.
        """
        values = self._map.read(row.source, row.content)
        return Keyed(self._map.key(row.source, values) or "", row, values)

    def refuse_unmatched(self) -> None:
        """Raise ConfigError at the first id that some source lacks; nothing is written for it."""
        for entry in self._joined():
            if isinstance(entry, Group) and not entry.late and (lacking := self._lacking(entry)):
                row = entry.rows[0].row
                raise ConfigError(
                    f"id {entry.key!r} ({row.uri} line {row.line}) has no row in {lacking}; nothing was written. "
                    "Mend the sources, or choose on_unmatched index_partial or dead_letter"
                )

    def entry(self, group: Group) -> Item | Rejected:
        """Make the document of a group of rows, or say why there is none."""
        rows = tuple(keyed.row for keyed in group.rows)
        try:
            self._refuse(group)
            entry = self._document(group.key, rows, [self._part(keyed) for keyed in group.rows], late=group.late)
        except RecordRejected as error:
            entry = self._rejected(group.key, rows, error, late=group.late)
        if self._strict and group.key and not group.late and isinstance(entry, Rejected):
            self._refused.give(digest_of(group.key))
        return entry

    def _document(self, key: str, rows: tuple[Row, ...], parts: Sequence[Part], *, late: bool) -> Item | Rejected:
        document = self._map.document(parts, partial=late)
        if document.nulls and (reason := self._error_in(rows)):
            return Rejected(rows, reason, key or None, late)
        name = self._map.id_of(parts, key) or digest(*map(str, self._place(rows[0])))
        op_type = "upsert" if late else self._request.op_type
        lines = lines_of(name, *document.pieces, op_type=op_type, routing=document.routing)
        return Item(name, lines, Mapped(rows, document.nulls, late))

    def _rejected(self, key: str, rows: tuple[Row, ...], error: RecordRejected, *, late: bool) -> Rejected:
        cause = self._error_in(rows) or str(error)
        return Rejected(rows, cause, key or None, late, isinstance(error, VectorRejected))

    def _unjoined(self) -> Iterator[Entry]:
        """Make the documents of one source: row by row, as fast as it goes; only ids that come again are looked for."""
        met, has_ids, keeps_first = SeenKeys(), self._map.joins, self._request.op_type == "create"
        for row in self._rows(0):
            if not isinstance(row, Row):
                yield row
                continue
            key, late = "", False
            try:
                values = self._map.read(0, row.content)
                if has_ids:
                    key = self._map.key(0, values) or ""
                    late = not met.add(digest_of(key))
                    if late and keeps_first:
                        raise _came_before(key)
                yield self._document(key, (row,), (Part(0, values),), late=late)
            except RecordRejected as error:
                yield self._rejected(key, (row,), error, late=late)

    def _joined(self) -> Iterator[Group | Rejected | Blank]:
        """Yield groups of rows by id."""
        streams: list[Stream[Rejected | Blank]] = [
            Stream(self._keyed(number), source.size_bytes) for number, source in enumerate(self._sources)
        ]
        # A spill has no name there, so nothing is left behind, whatever ends this process.
        folder = self._folder or Path(tempfile.gettempdir())
        yield from join(streams, folder=folder, memory_bytes=self._memory_bytes)

    def _keyed(self, number: int) -> Iterator[Keyed | Rejected | Blank]:
        for row in self._rows(number):
            if not isinstance(row, Row):
                yield row
                continue
            try:
                yield self.keyed(row)
            except RecordRejected as error:
                yield Rejected((row,), self._error_in((row,)) or str(error))

    def _rows(self, number: int) -> Iterator[Row | Blank | Rejected]:
        for row in self._read(self._objects, number, self._sources[number]):
            if isinstance(row, Row):
                self.read_bytes += len(row.content)
            yield row

    def _part(self, keyed: Keyed) -> Part:
        row = keyed.row
        return Part(row.source, keyed.values if keyed.values is not None else self._map.read(row.source, row.content))

    def _refuse(self, group: Group) -> None:
        if group.late:
            if self._request.op_type == "create":
                raise _came_before(group.key)
            if self._strict and self._refused.is_given(digest_of(group.key)):
                raise RecordRejected(f"earlier rows with id {group.key!r} became a dead letter; these belong to them")
        elif self._strict and (lacking := self._lacking(group)):
            raise RecordRejected(f"no row with id {group.key!r} in {lacking}")

    def _lacking(self, group: Group) -> str:
        there = {keyed.row.source for keyed in group.rows}
        return ", ".join(
            f"source[{number}] ({source.name})" for number, source in enumerate(self._sources) if number not in there
        )

    def _error_in(self, rows: Sequence[Row]) -> str | None:
        """Return the AI service's reason, unless the map reads the errors themselves."""
        for row in rows:
            reason = None if self._map.reads(row.source, "error") else self._row_error(row.content)
            if reason:
                return reason
        return None


def _came_before(key: str) -> RecordRejected:
    return RecordRejected(f"a row with id {key!r} came before; op_type create keeps the first")


class FieldMapped:
    """Makes documents by a request's field map.

    Args:
        request: what to put where.
        reading: the named arguments of `Documents`.
    """

    def __init__(self, request: IngestRequest, **reading: Any) -> None:  # noqa: ANN401 - those of `Documents`
        self._request = request
        self._reading = reading

    @property
    def decisive(self) -> list[Any]:
        """What of the request decides the documents."""
        request = self._request
        return [
            request.field_map,
            request.ingest_fields,
            request.op_type,
            request.on_missing,
            request.on_unmatched,
            request.ingest_pipeline,
            request.routing,
            request.joined_by,
        ]

    def check(self, sources: Sequence[Source]) -> None:
        """Raise ConfigError when the map cannot work with so many sources."""
        self._fields = len(compile_map(self._request, sources=len(sources)).fields)

    def open(self, cluster: Cluster, sources: Sequence[Source]) -> tuple[Index, str | None]:  # noqa: ARG002 - of `DocumentFactory`
        """Return the request's index."""
        return open_target(cluster, self._request)

    def documents(self, index: Index, sources: Sequence[Source], *, anew: bool) -> Documents:
        """Return the documents; raise ConfigError for rows without partners where none may be."""
        field_map = compile_map(self._request, sources=len(sources), vectors=index.vectors)
        if self._request.on_unmatched == "fail" and len(sources) > 1 and anew:
            Documents(self._request, field_map, sources, **self._reading).refuse_unmatched()
        return Documents(self._request, field_map, sources, **self._reading)

    def indexes(self, index: Index) -> list[str]:
        """Return the one index."""
        return [index.name]

    def remark(self, counts: IngestCounts) -> str | None:
        """Say when no path leads anywhere."""
        documents = counts.indexed + counts.unchanged
        if documents and counts.nulls == documents * self._fields:
            return "no row has anything at any mapped path: all fields are null; check the paths and the sources"
        return None
