"""Dry run of a request: checks the index and the objects, processes the first rows, writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.first_rows import FirstRowsAccount, process_first_rows
from opensearch_batch.cli.request_file import read_request
from opensearch_batch.core.ingest.engine import refuse_duplicates
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.request_ingest import find_sources
from opensearch_batch.core.ingest.sinks.index_target import check_target
from opensearch_batch.core.opensearch.cluster import vector_fields
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.services.registry import row_errors

LISTED_OBJECTS = 10


class SourceFound(msgspec.Struct, frozen=True):
    """One source and its objects."""

    source: str
    objects: list[ObjectInfo]


class PreviewAccount(FirstRowsAccount, frozen=True, kw_only=True):
    """Result of a dry run; `index_found` is None if no cluster was given."""

    index: str | None = None
    index_found: bool | None = None
    sources: list[SourceFound] = msgspec.field(default_factory=list)
    remarks: list[str] = msgspec.field(default_factory=list)


class Preview(ClientCommand[PreviewAccount]):
    """The ingest command with --dry-run."""

    when_stopped = "nothing was written"

    def __init__(self, request: str, clients: ClientFactory) -> None:
        super().__init__(PreviewAccount(), clients)
        self._request = request

    def execute(self) -> None:
        batch = read_request(self._request).batch
        self.update(index=batch.ingest.index)
        objects = self._stores(batch.credential)
        sources = find_sources(batch, objects)
        refuse_duplicates(sources)
        self.update(sources=[SourceFound(source.name, list(source.objects)) for source in sources])
        vectors = self._check_index(batch.ingest)
        result = process_first_rows(batch.ingest, sources, objects, vectors=vectors, row_errors=row_errors())
        self.update(**msgspec.structs.asdict(result))
        if not result.whole and len(sources) > 1:
            self._remark("only the first rows of each source were read, so a run may complete the partial documents")

    def _check_index(self, request: IngestRequest) -> tuple[VectorField, ...]:
        """Return the vector fields of the index."""
        planned = vector_fields((request.index_body or {}).get("mappings", {}))
        if not self._clients.opensearch_url:
            self._remark("no --opensearch-url: the index was not checked")
            return planned
        index = check_target(self._cluster(), request)
        self.update(index_found=index is not None)
        if index is not None:
            return index.vectors
        mappings = (
            "from index_body" if request.index_body else "with dynamic mappings, which map vectors as plain numbers"
        )
        self._remark(f"index {request.index} does not exist; it will be created {mappings}")
        return planned

    def _remark(self, remark: str) -> None:
        self.update(remarks=[*self.account.remarks, remark])

    def show(self, console: Console) -> None:
        account = self.account
        console.print(f"{account.index}: dry run, nothing was written")
        for source in account.sources:
            for line in _lines_of(source):
                console.print(line)
        for remark in account.remarks:
            console.print(f"remark: {remark}")
        extent = "all rows" if account.whole else f"the first {account.rows:,} rows"
        console.print(
            f"of {extent}: {account.documents:,} documents ({account.partial:,} partial), "
            f"{account.dead_letters:,} dead letters"
        )
        for document in account.first_documents:
            console.print(f"  {document.id}  {json.dumps(document.source, ensure_ascii=False)}")
        for rejected in account.first_dead_letters:
            console.print(f"  dead letter: {rejected.source} line {rejected.line}: {rejected.reason}")


def _lines_of(source: SourceFound) -> Iterator[str]:
    """Yield the lines printed for a source; a single object is not listed."""
    count, size_bytes = len(source.objects), sum(each.size_bytes for each in source.objects)
    yield f"{source.source}: {count:,} object{'s' if count > 1 else ''}, {size_bytes:,} bytes"
    if count > 1:
        yield from (f"  {each.uri}  {each.size_bytes:,} bytes" for each in source.objects[:LISTED_OBJECTS])
    if count > LISTED_OBJECTS:
        yield f"  and {count - LISTED_OBJECTS:,} more"
