"""Makes documents from events: rows become events, processors change the events, and routes select their sinks.

Every row becomes part of a document or a dead letter, or is counted as unrouted, dropped or elsewhere. The order of the
entries depends only on the sources, so an interrupted ingest can be continued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.json_text import TOO_DEEP
from opensearch_batch.core.ingest.documents import Reading, SourceRows
from opensearch_batch.core.ingest.event_items import ItemFactory
from opensearch_batch.core.ingest.join import Group
from opensearch_batch.core.ingest.sinks.base import Entry
from opensearch_batch.core.transform.enrich import INPUT, Enrich
from opensearch_batch.core.transform.events.event import Event, EventError
from opensearch_batch.core.transform.flow import DROPPED, UNROUTED, Flow
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Blank, Filtered, KeyedRow, MappedRows, Rejected, Row, Source
from opensearch_batch.core.types.vector_field import VectorField

# The first bytes of an array, and of the placeholder of a long array.
_ARRAY_STARTS = b"[-"
MetadataWriter = Callable[[Event, Row], None]


class EventOptions(msgspec.Struct, frozen=True):
    """How the documents of a sink are made from rows.

    Args:
        sink: the position of the sink in the flow.
        add_metadata: adds the bucket and key of a row's object to its event; None to add nothing.
        records: maps the URI of each output object to the URI of its job's input object.
        unparsed_arrays: do not parse long arrays of numbers; the index validates them.
    """

    items: ItemFactory
    sink: int = 0
    add_metadata: MetadataWriter | None = None
    enrich: Enrich | None = None
    records: Mapping[str, str] = {}
    unparsed_arrays: bool = False


class EventDocuments(SourceRows):
    """The documents of one sink; with `enrich`, the sources are the inputs of jobs and then their outputs."""

    def __init__(self, flow: Flow, options: EventOptions, sources: Sequence[Source], reading: Reading) -> None:
        super().__init__(sources, reading)
        self._flow = flow
        self._item = options.items.item
        self._sink_bit = 1 << options.sink
        self._add_metadata = options.add_metadata
        self._enrich = options.enrich
        self._records = options.records
        # Different input objects may have the same keys, so a key includes the number of its object.
        self._numbers = {uri: str(number) for number, uri in enumerate(dict.fromkeys(options.records.values()))}
        self._parse = Event.with_unparsed_array if options.unparsed_arrays else Event.of
        self._composer = reading.composer
        self._row_errors = reading.row_errors if reading.row_errors.members else None

    def __iter__(self) -> Iterator[Entry]:
        """Yield the documents, dead letters and filtered rows."""
        if self._enrich is not None and len(self._sources) > 1:
            yield from self._enriched(self._enrich)
            return
        entry = self.entry
        for number in range(len(self._sources)):
            for row in self._reading.read(self._reading.objects, number, self._sources[number]):
                yield entry(row) if type(row) is Row else row  # type: ignore[misc] # the others are entries

    def entry(self, row: Row) -> Entry:
        """Return the entry of a row that is not joined."""
        self.read_bytes += len(row.content)
        try:
            return self._routed_entry(self._event(row), (row,))
        except RecordRejected as error:
            return Rejected((row,), str(error))

    def _event(self, row: Row) -> Event:
        """Read a row; raise RecordRejected if it is an error or not a JSON object, or if adding metadata fails."""
        event = self._parse(row.content if self._composer is None else self._composer.content(row))
        errors = self._row_errors
        if errors is not None and _may_be_error(event.fields, errors) and (reason := errors.find(row.content)):
            raise RecordRejected(reason)
        if self._add_metadata is not None:
            try:
                self._add_metadata(event, row)
            except EventError as error:
                raise RecordRejected(f"the name of its object cannot be added: {error}") from None
        return event

    def _routed_entry(self, event: Event, rows: tuple[Row, ...]) -> Entry:
        try:
            routed = self._flow.run(event)
            if routed > 0 and routed & self._sink_bit:
                return self._item(event, rows[0], MappedRows(rows))
        except RecursionError:
            raise RecordRejected(TOO_DEEP) from None
        size_bytes = sum(len(row.content) for row in rows)
        sources, origin = tuple(row.source for row in rows), (rows[0].uri, rows[0].line)
        if routed == DROPPED:
            return Filtered(sources, "dropped", size_bytes, origin)
        return Filtered(sources, "unrouted" if routed == UNROUTED else "elsewhere", size_bytes, origin)

    def _enriched(self, enrich: Enrich) -> Iterator[Entry]:
        def keyed(number: int) -> Iterator[KeyedRow | Rejected | Blank | Filtered]:
            return self._keyed(number, enrich)

        entries: Iterator[Group | Rejected | Blank | Filtered] = self._joined(keyed)
        for entry in entries:
            if isinstance(entry, Group):
                yield from self._group_entries(entry, enrich)
            else:
                yield entry

    def _keyed(self, number: int, enrich: Enrich) -> Iterator[KeyedRow | Rejected | Blank | Filtered]:
        for row in self._rows(number):
            if not isinstance(row, Row):
                yield row
                continue
            try:
                event = Event.of(row.content) if number == INPUT else self._event(row)
                if number != INPUT and enrich.flow_before.run(event) == DROPPED:
                    yield Filtered((number,), "dropped", len(row.content))
                    continue
                record = row.uri if number == INPUT else self._records.get(row.uri, "")
                yield KeyedRow(f"{enrich.key(event)}\n{self._numbers.get(record, '')}", row, None)
            except RecordRejected as error:
                yield Rejected((row,), str(error))

    def _group_entries(self, group: Group, enrich: Enrich) -> Iterator[Entry]:
        """Yield the entries of one key: an event for each output row. The first entry also counts the input rows."""
        inputs = [keyed.row for keyed in group.rows if keyed.row.source == INPUT]
        outputs = [keyed.row for keyed in group.rows if keyed.row.source != INPUT]
        key = group.key.rpartition("\n")[0]
        if not outputs:
            reason = "an earlier record has this key" if group.late else "no output row has this key"
            yield from (Rejected((row,), f"{reason} ({key!r})", key) for row in inputs)
            return
        record = Event.of(inputs[-1].content) if inputs else None
        for number, row in enumerate(outputs):
            rows = (row, *inputs) if number == 0 else (row,)
            try:
                event = self._event(row)
                enrich.flow_before.run(event)
                enrich.merge(event, record)
                yield self._routed_entry(event, rows)
            except RecordRejected as error:
                yield Rejected(rows, str(error), key)


class EventDocumentFactory:
    """Makes the documents of one sink for an ingest; each ingest has a new flow, which counts its failures.

    `identity` has the options that affect the documents. `remedy` is what to do about rows that no sink takes.
    """

    def __init__(
        self,
        flow: Callable[[], Flow],
        options: EventOptions,
        *,
        identity: list[Any],
        reading: Reading,
        remedy: str = "no sink takes them; correct the routes, or give a sink the route _default",
    ) -> None:
        self.identity = [*identity, reading.memory_bytes]
        self.reading = reading
        self._new_flow = flow
        self._flow = flow()
        self._options = options
        self._remedy = remedy

    def check(self, sources: Sequence[Source]) -> None:
        """Accept any sources: the options were checked when the pipeline file was read."""

    def documents(
        self,
        sources: Sequence[Source],
        *,
        vectors: Sequence[VectorField],  # noqa: ARG002 - the index itself checks them
        resumes: bool = False,  # noqa: ARG002 - of `DocumentFactory`
    ) -> EventDocuments:
        self._flow = self._new_flow()
        return EventDocuments(self._flow, self._options, sources, self.reading)

    def remark(self, counts: IngestCounts) -> str | None:
        """Return a remark about failed processors, and about rows that no sink takes."""
        remarks = [f"{reason} ({times:,} times)" for reason, times in self._flow.failures.items()]
        if counts.unrouted:
            rows = "every row" if counts.unrouted == counts.read else f"{counts.unrouted:,} of {counts.read:,} rows"
            remarks.append(f"{rows} unrouted: {self._remedy}")
        return "; ".join(remarks) or None


def _may_be_error(fields: dict[str, Any], errors: RowErrors) -> bool:
    """Return whether a row may be an error of the AI service, by the names and types of its members."""
    for name in errors.members:
        if name in fields:
            value = fields[name]
            if not (type(value) is msgspec.Raw and memoryview(value)[0] in _ARRAY_STARTS):
                return True
    return False
