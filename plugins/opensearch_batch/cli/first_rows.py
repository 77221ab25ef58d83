"""Processes the first rows of each source into documents, without sending them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from opensearch_batch.cli.command import DRY_RUN, Account
from opensearch_batch.core.formats.reading import read_any_rows
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.mapped_documents import MappedDocuments
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.ingest.sinks.base import Entry, Item
from opensearch_batch.core.ingest.sinks.bulk_lines import fields_of
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Blank, Rejected, Row, Source
from opensearch_batch.core.types.vector_field import VectorField

SHOWN = 3
# Reading a source stops at this number of entries or bytes, whichever comes first.
MAX_ENTRIES, MAX_BYTES = 1_000, 16 << 20
# So large that the first rows are always joined in memory, without a spill file.
MEMORY_BYTES = 1 << 40
# A longer array of numbers is shown as its first numbers and its length.
MAX_NUMBERS, FIRST_NUMBERS = 8, 3


class DocumentShown(msgspec.Struct, frozen=True):
    """One document as it would be sent, with vectors shortened; `partial` if no row of some source was read for it."""

    id: str
    source: Any
    partial: bool


class RejectedShown(msgspec.Struct, frozen=True):
    """One row that would become a dead letter, and why."""

    source: str
    line: int
    reason: str


class FirstRowsAccount(Account, frozen=True, kw_only=True):
    """Result for the first rows; `whole` is true if there are no further rows."""

    whole: bool = False
    rows: int = 0
    documents: int = 0
    partial: int = 0
    dead_letters: int = 0
    first_documents: list[DocumentShown] = msgspec.field(default_factory=list)
    first_dead_letters: list[RejectedShown] = msgspec.field(default_factory=list)


class FirstRows:
    """Reads the first rows of each source; `whole` is true if there were no further rows."""

    def __init__(self) -> None:
        self.whole = True

    def __call__(self, objects: Objects, number: int, source: Source) -> Iterator[Row | Blank | Rejected]:
        """Yield the first rows of one source."""
        read_bytes = 0
        for entries_read, entry in enumerate(read_any_rows(objects, number, source)):
            if entries_read >= MAX_ENTRIES or read_bytes >= MAX_BYTES:
                self.whole = False
                return
            read_bytes += len(entry.content) if isinstance(entry, Row) else entry.size_bytes
            yield entry


def process_first_rows(
    request: IngestRequest,
    sources: Sequence[Source],
    objects: Objects,
    *,
    vectors: Sequence[VectorField],
    row_errors: RowErrors,
) -> FirstRowsAccount:
    """Create the documents of the first rows; raise ConfigError or FatalError as an ingest of these rows would."""
    field_map = compile_map(request, sources=len(sources), vectors=vectors)

    def documents(variant: IngestRequest, reader: FirstRows) -> MappedDocuments:
        reading = Reading(objects, reader, row_errors, memory_bytes=MEMORY_BYTES)
        return MappedDocuments(variant, field_map, sources, reading)

    # If rows are left unread, an unmatched row may have its partner among them.
    lenient = msgspec.structs.replace(request, on_unmatched="index_partial")
    entries = list(documents(lenient, reader := FirstRows()))
    if reader.whole and request.on_unmatched == "fail" and len(sources) > 1:
        documents(request, FirstRows()).refuse_unmatched()
    if reader.whole and request.on_unmatched == "dead_letter":
        entries = list(documents(request, FirstRows()))
    return _result(entries, sources=len(sources), whole=reader.whole)


def _result(entries: Sequence[Entry], *, sources: int, whole: bool) -> FirstRowsAccount:
    items = [entry for entry in entries if isinstance(entry, Item)]
    rejected = [entry for entry in entries if isinstance(entry, Rejected)]
    # A late row is merged into a document that was counted before.
    new = [item for item in items if not item.context.late]
    partial_items = {id(item) for item in new if len({row.source for row in item.context.rows}) < sources}
    # Complete documents are shown first, because they show more of the field map.
    first = sorted(new, key=lambda item: id(item) in partial_items)[:SHOWN]
    return FirstRowsAccount(
        state=DRY_RUN,
        whole=whole,
        rows=sum(len(item.context.rows) for item in items) + sum(len(entry.rows) for entry in rejected),
        documents=len(new),
        partial=len(partial_items),
        dead_letters=len(rejected),
        first_documents=[
            DocumentShown(item.id, shortened(fields_of(item)), id(item) in partial_items) for item in first
        ],
        first_dead_letters=[RejectedShown(e.rows[0].uri, e.rows[0].line, e.reason) for e in rejected[:SHOWN]],
    )


def shortened(value: object) -> object:
    """Return a value with its vectors shortened."""
    if isinstance(value, dict):
        return {name: shortened(member) for name, member in value.items()}
    if isinstance(value, list):
        if len(value) > MAX_NUMBERS and all(isinstance(number, int | float) for number in value):
            return [*value[:FIRST_NUMBERS], f"… {len(value)} numbers"]
        return [shortened(member) for member in value]
    return value
