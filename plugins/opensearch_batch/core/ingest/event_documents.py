"""Rows become events, events documents; every row is a document, a dead letter, or counted as meant for no index.

The order of what comes out depends on the sources alone, so an ingest that broke off goes on where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.formats.lines import Read
from opensearch_batch.core.ingest.bulk import Item, fields_of
from opensearch_batch.core.ingest.documents import Entry
from opensearch_batch.core.ingest.event_items import Writing
from opensearch_batch.core.ingest.join import MEMORY_BYTES, Group, Stream, join
from opensearch_batch.core.ingest.request import IngestRequest, check_index_name
from opensearch_batch.core.ingest.target import check_target, open_target
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.transform.enrich import INPUT, Enrich
from opensearch_batch.core.transform.events.event import Event, EventError
from opensearch_batch.core.transform.flow import DROPPED, UNROUTED, Flow
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Blank, Filtered, Keyed, Mapped, Rejected, Row, Source

# An array, or what stands in for a long one.
_ARRAYS = b"[-"
# A flat array of so many numbers is a vector, where nobody said how to map it.
LEAST_DIMENSION = 16
ROWS_LOOKED_AT = 100
Prepare = Callable[[Event, Row], None]


class Writes(Protocol):
    """Makes what a sink writes of an event; raises RecordRejected where it cannot."""

    def item(self, event: Event, row: Row, origin: Any) -> Item:  # noqa: ANN401 - whatever the caller knows it by
        """Return it; the event is not used any more. The row is where it came from."""


class EventDocuments:
    """The documents of one sink.

    Args:
        flow: what happens to events.
        writing: what the sink writes of them.
        sink: its number in the flow.
        sources: what to read; where `enrich` is given, the jobs' inputs and their outputs.
        objects: where they lie.
        read: yields rows that each hold one JSON object.
        prepare: puts into an event what it has to know of its row; None for nothing.
        row_errors: finds the AI service's errors in rows; None for rows of no job.
        enrich: the join with the inputs, None for none.
        records: the object whose records the rows of an object are joined with.
        passes_arrays: leave the look at long arrays of numbers to the index.
        memory_bytes: how much may wait in memory for its partners.
    """

    def __init__(
        self,
        flow: Flow,
        writing: Writes,
        sink: int,
        sources: Sequence[Source],
        *,
        objects: Objects,
        read: Read,
        prepare: Prepare | None = None,
        row_errors: RowErrors | None = None,
        enrich: Enrich | None = None,
        records: Mapping[str, str] | None = None,
        passes_arrays: bool = False,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._flow = flow
        self._writing = writing
        self._bit = 1 << sink
        self._sources = sources
        self._objects = objects
        self._read = read
        self._prepare = prepare
        self._row_errors = row_errors
        self._enrich = enrich
        self._records = records or {}
        # A key is one of its object: inputs of one job may have the same keys.
        self._numbers = {uri: str(at) for at, uri in enumerate(dict.fromkeys(self._records.values()))}
        self._memory_bytes = memory_bytes
        self._open = Event.around_array if passes_arrays else Event.of
        self.read_bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield the documents, and in their place what is none."""
        if self._enrich is not None and len(self._sources) > 1:
            yield from self._enriched(self._enrich)
            return
        entry = self.entry
        for number in range(len(self._sources)):
            for row in self._read(self._objects, number, self._sources[number]):
                yield entry(row) if type(row) is Row else row  # type: ignore[misc] # the others are entries

    def entry(self, row: Row) -> Entry:
        """Return what becomes of a row that nothing is joined with."""
        self.read_bytes += len(row.content)
        try:
            return self._routed(self._event(row), (row,))
        except RecordRejected as error:
            return Rejected((row,), str(error))

    def _event(self, row: Row) -> Event:
        """Read a row.

        Raises:
            RecordRejected: it is no JSON object, an AI service's error, or has no room for what it has to know.
        """
        event = self._open(row.content)
        errors = self._row_errors
        if errors is not None and _may_be_error(event.fields, errors) and (reason := errors.find(row.content)):
            raise RecordRejected(reason)
        if self._prepare is not None:
            try:
                self._prepare(event, row)
            except EventError as error:
                raise RecordRejected(f"no room for what it has to know of its object: {error}") from None
        return event

    def _routed(self, event: Event, rows: tuple[Row, ...]) -> Entry:
        taken = self._flow.run(event)
        if taken > 0 and taken & self._bit:
            return self._writing.item(event, rows[0], Mapped(rows))
        size_bytes = sum(len(row.content) for row in rows)
        sources = tuple(row.source for row in rows)
        if taken == DROPPED:
            return Filtered(sources, "dropped", size_bytes)
        return Filtered(sources, "unrouted" if taken == UNROUTED else "elsewhere", size_bytes)

    def _rows(self, number: int) -> Iterator[Row | Blank | Rejected]:
        for row in self._read(self._objects, number, self._sources[number]):
            if isinstance(row, Row):
                self.read_bytes += len(row.content)
            yield row

    def _enriched(self, enrich: Enrich) -> Iterator[Entry]:
        streams: list[Stream[Rejected | Blank | Filtered]] = [
            Stream(self._keyed(number, enrich), source.size_bytes) for number, source in enumerate(self._sources)
        ]
        folder = Path(tempfile.gettempdir())
        for entry in join(streams, folder=folder, memory_bytes=self._memory_bytes):
            if isinstance(entry, Group):
                yield from self._of_group(entry, enrich)
            else:
                yield entry

    def _keyed(self, number: int, enrich: Enrich) -> Iterator[Keyed | Rejected | Blank | Filtered]:
        for row in self._rows(number):
            if not isinstance(row, Row):
                yield row
                continue
            try:
                event = Event.of(row.content) if number == INPUT else self._event(row)
                if number != INPUT and enrich.before.run(event) == DROPPED:
                    yield Filtered((number,), "dropped", len(row.content))
                    continue
                record = row.uri if number == INPUT else self._records.get(row.uri, "")
                yield Keyed(f"{enrich.key(event)}\n{self._numbers.get(record, '')}", row, None)
            except RecordRejected as error:
                yield Rejected((row,), str(error))

    def _of_group(self, group: Group, enrich: Enrich) -> Iterator[Entry]:
        """Yield what becomes of the rows of one key: an event for each output row, the first with its input."""
        inputs = [keyed.row for keyed in group.rows if keyed.row.source == INPUT]
        outputs = [keyed.row for keyed in group.rows if keyed.row.source != INPUT]
        key = group.key.rpartition("\n")[0]
        if not outputs:
            reason = "a record with this key came before" if group.late else "no output row answers this record"
            yield from (Rejected((row,), f"{reason} ({key!r})", key) for row in inputs)
            return
        record = Event.of(inputs[-1].content) if inputs else None
        for at, row in enumerate(outputs):
            rows = (row, *inputs) if at == 0 else (row,)
            try:
                event = self._event(row)
                enrich.before.run(event)
                enrich.merge(event, record)
                yield self._routed(event, rows)
            except RecordRejected as error:
                yield Rejected(rows, str(error), key)


class EventDocumentFactory:
    """Makes documents of one sink for an ingest.

    Args:
        request: the index, its body, and how it is written.
        flow: makes a new flow, whose counts of failures are this ingest's.
        writing: makes the writing, which calls what it is given with each index that an event names.
        decisive: what of pipeline and sink decides the documents.
        sink: the sink's number.
        remedy: what to do about rows that no sink takes.
        reading: the other named arguments of `EventDocuments`.
    """

    def __init__(
        self,
        request: IngestRequest,
        *,
        flow: Callable[[], Flow],
        writing: Callable[[Callable[[str], None]], Writing],
        decisive: list[Any],
        sink: int = 0,
        remedy: str = "no sink takes them; mend the routes, or give a sink the route _default",
        **reading: Any,  # noqa: ANN401 - those of `EventDocuments`
    ) -> None:
        self.request = request
        self._flow = flow
        self._writing = writing
        self._sink = sink
        self._remedy = remedy
        self._reading = reading
        self._used = flow()
        # The indexes that events named, where the request has none.
        self._named: dict[str, Index] = {}
        self.decisive = decisive

    def check(self, sources: Sequence[Source]) -> None:
        """Let any sources pass: what reads them was checked with the file."""

    def open(self, cluster: Cluster, sources: Sequence[Source]) -> tuple[Index, str | None]:
        """Return the index; one that is absent and has no mappings is made with the vectors of the first documents.

        Raises:
            ConfigError: it is there with other mappings than the body.
        """
        if not self.request.index:
            self._cluster = cluster
            return Index("", "", (), {}, {}), None
        body = self.request.index_body
        if (body or {}).get("mappings") or check_target(cluster, self.request) is not None:
            return open_target(cluster, self.request)
        dimensions = self._dimensions(sources)
        if not dimensions:
            return open_target(cluster, self.request)
        request = msgspec.structs.replace(self.request, index_body=with_vectors(body or {}, dimensions))
        fields = ", ".join(f"{name} ({size} values)" for name, size in dimensions.items())
        index, _ = open_target(cluster, request)
        return index, f"index {request.index} was not there and is made with knn_vector fields: {fields}"

    def documents(self, index: Index, sources: Sequence[Source], *, anew: bool) -> EventDocuments:  # noqa: ARG002 - of `DocumentFactory`
        """Return the documents of the sources."""
        self._used = self._flow()
        return self._documents(self._used, sources, self._make)

    def indexes(self, index: Index) -> list[str]:
        """Return the request's index, or those that events named."""
        return [index.name] if index.name else list(self._named)

    def _make(self, name: str) -> None:
        """Make an index that an event names, if it is absent.

        Raises:
            RecordRejected: no index can have this name.
        """
        if name not in self._named:
            try:
                check_index_name(name)
            except ConfigError as error:
                raise RecordRejected(str(error)) from None
            self._named[name], _ = open_target(self._cluster, msgspec.structs.replace(self.request, index=name))

    def remark(self, counts: IngestCounts) -> str | None:
        """Say what processors could not do, and what no sink takes."""
        said = [f"{reason} ({times:,} times)" for reason, times in self._used.failures.items()]
        if counts.unrouted:
            rows = "every row" if counts.unrouted == counts.read else f"{counts.unrouted:,} of {counts.read:,} rows"
            said.append(f"{rows} unrouted: {self._remedy}")
        return "; ".join(said) or None

    def _dimensions(self, sources: Sequence[Source]) -> dict[str, int]:
        """Return the vectors of the first document that there is."""
        documents = self._documents(self._flow(), sources, lambda name: None)  # noqa: ARG005 - nothing is written
        for _, entry in zip(range(ROWS_LOOKED_AT), documents, strict=False):
            if isinstance(entry, Item) and entry.has_document:
                return {name: len(value) for name, value in fields_of(entry).items() if is_vector(value)}
        return {}

    def _documents(self, flow: Flow, sources: Sequence[Source], named: Callable[[str], None]) -> EventDocuments:
        return EventDocuments(flow, self._writing(named), self._sink, sources, passes_arrays=True, **self._reading)


def is_vector(value: object) -> bool:
    """Say whether a value looks like a vector: a flat array of many numbers, not all of them whole."""
    if not isinstance(value, list) or len(value) < LEAST_DIMENSION:
        return False
    return all(type(each) in (int, float) for each in value) and any(type(each) is float for each in value)


def with_vectors(body: dict[str, Any], dimensions: dict[str, int]) -> dict[str, Any]:
    """Return the body of an index with these vector fields in it; the engine is the one that every node has."""
    method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
    fields = {name: {"type": "knn_vector", "dimension": size, "method": method} for name, size in dimensions.items()}
    return {**body, "settings": {**body.get("settings", {}), "index.knn": True}, "mappings": {"properties": fields}}


def refuse_plain_vectors(
    index: Index,
    fields: Sequence[str],
    remedy: str = "delete the index (it is made anew with knn_vector), or name another",
) -> None:
    """Raise ConfigError when a field that takes predictions is mapped as something else than a vector."""
    there = {vector.name for vector in index.vectors}
    properties = index.mappings.get("properties", {})
    for name in fields:
        kind = properties.get(name, {}).get("type")
        if kind is not None and name not in there:
            raise ConfigError(
                f"index {index.name}: field {name} is mapped as {kind}, so its vectors could not be searched; {remedy}"
            )


def _may_be_error(fields: dict[str, Any], errors: RowErrors) -> bool:
    """Whether a row may hold an AI service's error, as far as its members' names and kinds say."""
    for name in errors.members:
        if name in fields:
            value = fields[name]
            if not (type(value) is msgspec.Raw and memoryview(value)[0] in _ARRAYS):
                return True
    return False
