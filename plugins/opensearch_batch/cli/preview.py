"""A dry run says what a request would do, from the first rows of each source; it writes nothing at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from rich.console import Console

from opensearch_batch.cli.command import DRY_RUN, Account, Command
from opensearch_batch.cli.connections import Connections
from opensearch_batch.cli.request_file import read_request
from opensearch_batch.core.bulk import Item
from opensearch_batch.core.cluster import Index, vector_fields
from opensearch_batch.core.documents import Documents
from opensearch_batch.core.ingest import find_sources
from opensearch_batch.core.join import Row
from opensearch_batch.core.objects import ObjectInfo, Objects
from opensearch_batch.core.request import IngestRequest, compile_map
from opensearch_batch.core.rows import Blank, Rejected, Source, read_rows, refuse_twice
from opensearch_batch.core.target import check_target
from opensearch_batch.core.vectors import VectorField

SHOWN = 3
# What is looked at of each source, whichever comes first.
MAX_ROWS, MAX_BYTES = 1_000, 16 << 20
# A longer array of numbers is a vector; its first ones tell whether it is the right one.
MAX_NUMBERS, FIRST_NUMBERS = 8, 3


class SourceFound(msgspec.Struct, frozen=True):
    """One source and the objects behind it."""

    source: str
    objects: list[ObjectInfo]


class DocumentShown(msgspec.Struct, frozen=True):
    """One document as it would be sent, vectors shortened; `partial` when some source has no row of it."""

    id: str
    source: Any
    partial: bool


class RejectedShown(msgspec.Struct, frozen=True):
    """One row that would become a dead letter."""

    source: str
    line: int
    reason: str


class PreviewAccount(Account, frozen=True, kw_only=True):
    """What a request would do; rows, documents, dead letters and partial documents are those of the rows looked at.

    `index_found` is None when no cluster was named; `whole` says that all rows were looked at.
    """

    index: str | None = None
    index_found: bool | None = None
    sources: list[SourceFound] = msgspec.field(default_factory=list)
    whole: bool = True
    rows: int = 0
    documents: int = 0
    partial: int = 0
    dead_letters: int = 0
    first_documents: list[DocumentShown] = msgspec.field(default_factory=list)
    first_dead_letters: list[RejectedShown] = msgspec.field(default_factory=list)
    remarks: list[str] = msgspec.field(default_factory=list)


class Preview(Command[PreviewAccount]):
    """One dry run."""

    when_stopped = "nothing was written"

    def __init__(self, request: str, connections: Connections) -> None:
        super().__init__(PreviewAccount())
        self._request = request
        self._connections = connections

    def work(self) -> None:
        """Look at index and sources."""
        batch = read_request(self._request).batch
        self.secrets.keep_credential(batch.credential)
        self.tell(index=batch.ingest.index)
        objects = self._connections.stores(batch.credential)
        sources = find_sources(batch, objects)
        refuse_twice(sources)
        self.tell(sources=[SourceFound(source.name, list(source.objects)) for source in sources])
        vectors = self._look_at_index(batch.ingest)
        self._look_at_rows(batch.ingest, sources, objects, vectors)
        self.tell(state=DRY_RUN)

    def _look_at_index(self, request: IngestRequest) -> tuple[VectorField, ...]:
        """Return the vector fields that documents have to fit."""
        planned = vector_fields((request.index_body or {}).get("mappings", {}))
        if not self._connections.opensearch_url:
            self.tell(remarks=["no --opensearch-url: the index was not looked at"])
            return planned
        index = check_target(self._connections.cluster(self.secrets), request)
        self.tell(index_found=index is not None, remarks=_index_remarks(request, index))
        return planned if index is None else index.vectors

    def _look_at_rows(
        self, request: IngestRequest, sources: list[Source], objects: Objects, vectors: tuple[VectorField, ...]
    ) -> None:
        field_map = compile_map(request, sources=len(sources), vectors=vectors)
        if request.on_unmatched == "fail" and len(sources) > 1:
            Documents(request, field_map, sources, objects=objects).refuse_unmatched()
        look = FirstRows()
        for entry in Documents(request, field_map, sources, objects=objects, read=look):
            if isinstance(entry, Item):
                self._see_document(entry, sources=len(sources))
            elif isinstance(entry, Rejected):
                self._see_rejected(entry)
        self.tell(whole=look.whole, rows=look.rows)

    def _see_document(self, item: Item, *, sources: int) -> None:
        account = self.account
        partial = len({row.source for row in item.origin.rows}) < sources
        self.tell(documents=account.documents + 1, partial=account.partial + partial)
        if len(account.first_documents) < SHOWN:
            body = json.loads(item.lines.splitlines()[1])
            source = body["doc"] if "doc_as_upsert" in body else body
            shown = DocumentShown(item.id, _shortened(source), partial)
            self.tell(first_documents=[*account.first_documents, shown])

    def _see_rejected(self, entry: Rejected) -> None:
        account = self.account
        self.tell(dead_letters=account.dead_letters + 1)
        if len(account.first_dead_letters) < SHOWN:
            row = entry.rows[0]
            shown = RejectedShown(row.uri, row.line, entry.reason)
            self.tell(first_dead_letters=[*account.first_dead_letters, shown])

    def show(self, console: Console) -> None:
        """Show people what would be done."""
        account = self.account
        console.print(f"{account.index}: dry run, nothing was written")
        for source in account.sources:
            size_bytes = sum(found.size_bytes for found in source.objects)
            console.print(f"{source.source}: {len(source.objects):,} objects, {size_bytes:,} bytes")
        for remark in account.remarks:
            console.print(f"remark: {remark}")
        extent = "all rows" if account.whole else f"the first {account.rows:,} rows"
        console.print(
            f"of {extent}: {account.documents:,} documents ({account.partial:,} partial), "
            f"{account.dead_letters:,} dead letters"
        )
        for document in account.first_documents:
            console.print(f"  {document.id}  {json.dumps(document.source, ensure_ascii=False)}")
        for letter in account.first_dead_letters:
            console.print(f"  dead letter: {letter.source} line {letter.line}: {letter.reason}")


class FirstRows:
    """Reads the first rows of each source; `whole` says that there were no more."""

    def __init__(self) -> None:
        self.whole = True
        self.rows = 0

    def __call__(self, objects: Objects, number: int, source: Source) -> Iterator[Row | Blank | Rejected]:
        """Yield rows until there are enough."""
        rows = size_bytes = 0
        for entry in read_rows(objects, number, source):
            if rows >= MAX_ROWS or size_bytes >= MAX_BYTES:
                self.whole = False
                return
            if not isinstance(entry, Blank):
                rows += 1
                self.rows += 1
            size_bytes += len(entry.content) if isinstance(entry, Row) else entry.size_bytes
            yield entry


def _index_remarks(request: IngestRequest, index: Index | None) -> list[str]:
    if index is not None:
        return []
    how = "as index_body says" if request.index_body else "with dynamic mappings, in which vectors are plain numbers"
    return [f"index {request.index} is not there; it will be made {how}"]


def _shortened(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a value with its vectors cut to what a person can read."""
    if isinstance(value, dict):
        return {name: _shortened(member) for name, member in value.items()}
    if isinstance(value, list):
        if len(value) > MAX_NUMBERS and all(isinstance(number, int | float) for number in value):
            return [*value[:FIRST_NUMBERS], f"… {len(value)} numbers"]
        return [_shortened(member) for member in value]
    return value
