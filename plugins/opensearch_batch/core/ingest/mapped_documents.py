"""Makes documents with a field map: joins the rows of all sources by id, and maps or rejects them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.ingest.documents import Reading, SourceRows
from opensearch_batch.core.ingest.join import Group
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.ingest.sinks.base import Entry, Item
from opensearch_batch.core.ingest.sinks.bulk_lines import action_bytes, lines_of, version_members
from opensearch_batch.core.ingest.spill import KeyTable, SeenKeys
from opensearch_batch.core.ingest.spill import digest as digest_of
from opensearch_batch.core.transform.field_map import FieldMap, Part
from opensearch_batch.core.transform.json_path import Text, Values
from opensearch_batch.core.transform.vectors import VectorRejected
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.rows import Blank, KeyedRow, MappedRows, Rejected, Row, Source
from opensearch_batch.core.types.vector_field import VectorField

_encode = msgspec.json.Encoder().encode


class MappedDocuments(SourceRows):
    """Makes the documents of a request; the id of a row without one is a digest of the row's origin."""

    def __init__(
        self, request: IngestRequest, field_map: FieldMap, sources: Sequence[Source], reading: Reading
    ) -> None:
        super().__init__(sources, reading)
        self._request = request
        self._map = field_map
        self._row_error = reading.row_errors.find
        self._origin_of = reading.origin_of
        self._needs_all_sources = request.on_unmatched == "dead_letter" and len(sources) > 1
        self._dead_keys = KeyTable()
        self._version = version_members(request.version)
        self._action = action_bytes(request.action, self._version)
        composer = reading.composer
        self._values = self._read_values if composer is None else composer.values(field_map)
        self._unique_ids = composer is not None and composer.unique_ids

    def __iter__(self) -> Iterator[Entry]:
        """Yield the documents, and rows that are rejected or blank."""
        return self._single_source_entries() if len(self._sources) == 1 else self._joined_entries()

    def _joined_entries(self) -> Iterator[Entry]:
        for entry in self._groups():
            yield self.entry(entry) if isinstance(entry, Group) else entry

    def keyed(self, row: Row) -> KeyedRow:
        """Extract a row's values and id; raise RecordRejected if it is not a JSON object, or has no id."""
        values = self._values(row)
        return KeyedRow(self._map.key(row.source, values) or "", row, values)

    def reason(self, rows: Sequence[Row], error: RecordRejected) -> str:
        """Return why rows are rejected: the AI service's error in one of them, else the error that was raised."""
        return self._error_in(rows) or str(error)

    def refuse_unmatched(self) -> None:
        """Raise ConfigError for the first id that some source lacks, before anything is written."""
        for entry in self._groups():
            if isinstance(entry, Group) and not entry.late and (absent := self._absent_sources(entry)):
                row = entry.rows[0].row
                raise ConfigError(
                    f"id {entry.key!r} ({row.uri} line {row.line}) has no row in {absent}; nothing was written. "
                    "Correct the sources, or choose on_unmatched index_partial or dead_letter"
                )

    def entry(self, group: Group) -> Item | Rejected:
        """Make the document of a group of rows, or reject them."""
        rows = tuple(keyed.row for keyed in group.rows)
        try:
            self._check_group(group)
            entry = self._document(group.key, rows, [self._part(keyed) for keyed in group.rows], late=group.late)
        except RecordRejected as error:
            entry = self._rejected(group.key, rows, error, late=group.late)
        if self._needs_all_sources and group.key and not group.late and isinstance(entry, Rejected):
            self._dead_keys.claim(digest_of(group.key))
        return entry

    def _document(self, key: str, rows: tuple[Row, ...], parts: Sequence[Part], *, late: bool) -> Item | Rejected:
        document = self._map.document(parts, partial=late)
        if document.nulls and (reason := self._error_in(rows)):
            return Rejected(rows, reason, key or None, late)
        document_id = key or digest(*map(str, self._origin_of(rows[0])))
        op_type = "upsert" if late else self._request.action
        lines = lines_of(
            document_id, *document.pieces, op_type=op_type, routing=document.routing, version=self._version
        )
        return Item(document_id, lines, MappedRows(rows, document.nulls, late))

    def _complete_document(self, key: str, row: Row, pieces: tuple[Text, ...]) -> Item:
        """Return the item of a document that has every field."""
        document_id = key or digest(*map(str, self._origin_of(row)))
        before, after, end = self._action
        return Item(document_id, (before + _encode(document_id) + after, *pieces, end), MappedRows((row,)))

    def _rejected(self, key: str, rows: tuple[Row, ...], error: RecordRejected, *, late: bool) -> Rejected:
        return Rejected(rows, self.reason(rows, error), key or None, late, isinstance(error, VectorRejected))

    def _single_source_entries(self) -> Iterator[Entry]:
        """Make the documents of one source row by row; only digests of their ids are kept in memory."""
        seen, has_ids, keeps_first = SeenKeys(), self._map.has_key, self._request.op_type == "create"
        has_unique_ids, routes = self._unique_ids, self._map.routes
        for row in self._rows(0):
            if not isinstance(row, Row):
                yield row
                continue
            key, late = "", False
            try:
                values = self._values(row)
                if has_ids:
                    key = self._map.key(0, values) or ""
                    late = not (has_unique_ids or seen.add(digest_of(key)))
                    if late and keeps_first:
                        raise _duplicate_id(key)
                pieces = None if late or routes else self._map.complete(values)
                if pieces is None:
                    yield self._document(key, (row,), (Part(0, values),), late=late)
                else:
                    yield self._complete_document(key, row, pieces)
            except RecordRejected as error:
                yield self._rejected(key, (row,), error, late=late)

    def _read_values(self, row: Row) -> Values:
        return self._map.read(row.source, row.content)

    def _groups(self) -> Iterator[Group | Rejected | Blank]:
        return self._joined(self._keyed)

    def _keyed(self, number: int) -> Iterator[KeyedRow | Rejected | Blank]:
        for row in self._rows(number):
            if not isinstance(row, Row):
                yield row
                continue
            try:
                yield self.keyed(row)
            except RecordRejected as error:
                yield Rejected((row,), self.reason((row,), error))

    def _part(self, keyed: KeyedRow) -> Part:
        row = keyed.row
        return Part(row.source, keyed.values if keyed.values is not None else self._map.read(row.source, row.content))

    def _check_group(self, group: Group) -> None:
        if group.late:
            if self._request.op_type == "create":
                raise _duplicate_id(group.key)
            if self._needs_all_sources and self._dead_keys.is_claimed(digest_of(group.key)):
                raise RecordRejected(
                    f"earlier rows with id {group.key!r} became a dead letter, so these rows have no document to update"
                )
        elif self._needs_all_sources and (absent := self._absent_sources(group)):
            raise RecordRejected(f"no row with id {group.key!r} in {absent}")

    def _absent_sources(self, group: Group) -> str:
        """Return the names of the sources that have no row in a group."""
        present = {keyed.row.source for keyed in group.rows}
        return ", ".join(
            f"source[{number}] ({source.name})" for number, source in enumerate(self._sources) if number not in present
        )

    def _error_in(self, rows: Sequence[Row]) -> str | None:
        """Return the AI service's error in one of the rows, or None; skip sources whose errors the field map reads."""
        for row in rows:
            reason = None if self._map.reads(row.source, "error") else self._row_error(row.content)
            if reason:
                return reason
        return None


def _duplicate_id(key: str) -> RecordRejected:
    return RecordRejected(f"an earlier row has id {key!r}; op_type create keeps the first row")


class MappedDocumentFactory:
    """Makes documents with the field map of a request."""

    def __init__(self, request: IngestRequest, reading: Reading) -> None:
        self._request = request
        self.reading = reading

    @property
    def identity(self) -> list[Any]:
        """Everything in the request that affects the documents, and the memory bound, which affects their order."""
        request = self._request
        return [
            request.field_map,
            request.ingest_fields,
            request.op_type,
            request.on_missing,
            request.on_unmatched,
            request.ingest_pipeline,
            request.routing,
            self.reading.memory_bytes,
        ]

    def check(self, sources: Sequence[Source]) -> None:
        """Raise ConfigError if the map does not fit this number of sources."""
        self._field_count = len(compile_map(self._request, sources=len(sources)).fields)

    def documents(
        self, sources: Sequence[Source], *, vectors: Sequence[VectorField], resumes: bool = False
    ) -> MappedDocuments:
        """Return the documents. With on_unmatched fail, raise ConfigError if a source lacks an id, unless `resumes`."""
        field_map = compile_map(self._request, sources=len(sources), vectors=vectors)
        if self._request.on_unmatched == "fail" and len(sources) > 1 and not resumes:
            MappedDocuments(self._request, field_map, sources, self.reading).refuse_unmatched()
        return MappedDocuments(self._request, field_map, sources, self.reading)

    def remark(self, counts: IngestCounts) -> str | None:
        """Return a remark when no row has a value at any mapped path."""
        documents = counts.indexed + counts.unchanged + counts.filtered + counts.superseded
        if documents and counts.nulls == documents * self._field_count:
            return "no row has a value at any mapped path: all fields are null; check the paths and the sources"
        return None
