"""Ids and routing values of documents, read from records alone: before a prediction exists, and to delete documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ingest.prediction_map import reads_prediction
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.transform.field_map import document_id
from opensearch_batch.core.transform.json_path import PlainPath, RowReader, Text, Values
from opensearch_batch.core.transform.map_paths import ID_FIELD, is_optional_routing
from opensearch_batch.core.types.identity import digest


class DocumentIds(msgspec.Struct, frozen=True):
    """Where the id and the routing value of a document are in its record.

    `id_path` is None if the id is not known from the record. Then the position of the record identifies it. `is_event`:
    the record is an event of processors, where a document without an id has the id of its position.
    """

    id_path: str | None
    routing_path: str | None
    is_event: bool = False


class DeletedWhen(msgspec.Struct, frozen=True):
    """Which records are tombstones: those with this value at a plain path."""

    path: str
    equals: str | int | float | bool

    def reader(self) -> Callable[[bytes], bool]:
        """Return a function that tells whether a record is a tombstone.

        The function raises RecordRejected if the record is not a JSON object.
        """
        values_of = RowReader([("deleted", self.path)]).values
        return lambda record: self.are_equal(values_of(record))[0]

    def are_equal(self, texts: Values) -> list[bool]:
        """Return which JSON texts are the value."""
        expected, is_bool = self.equals, isinstance(self.equals, bool)
        values = msgspec.json.decode(b"[%b]" % b",".join(text or b"null" for text in texts))
        return [value == expected and isinstance(value, bool) == is_bool for value in values]


def unknown_id_reason(request: IngestRequest, adapter: ServiceAdapter) -> str | None:
    """Return why the ids of documents are not known from their records, None if they are."""
    path = request.field_map.get(ID_FIELD)
    if path is None:
        return "no _id is mapped"
    if reads_prediction(str(path), adapter):
        return f"_id is mapped to {path}, which is not in the record"
    for name, changed in (("_id", path), ("routing", request.routing)):
        if request.processors is not None and changed is not None and _may_change(request.processors, changed):
            return f"processors may change {changed}, the path of {name}"
    return None


def document_ids(request: IngestRequest, adapter: ServiceAdapter) -> DocumentIds:
    """Return where the ids and routing values of a pipeline's documents are in its records."""
    if unknown_id_reason(request, adapter) is not None:
        return DocumentIds(None, None)
    return DocumentIds(str(request.field_map[ID_FIELD]), request.routing, request.processors is not None)


def position_id(uri: str, line: int) -> str:
    """Return the id of a document that is identified by the position of its record."""
    return digest(uri, str(line))


def _may_change(processors: list[dict[str, Any]], path: str) -> bool:
    """Return whether the options of processors contain the name of a member at the top level of a path."""
    steps = PlainPath.parse(path).steps
    return not steps or str(steps[0]).encode() in msgspec.json.encode(processors)


# Returns id and routing value of the record at a position of an object.
ReadIds = Callable[[bytes, str, int], tuple[str, str | None]]


def ids_reader(ids: DocumentIds) -> ReadIds:
    """Return a function that reads the id and the routing value of a record.

    The function raises RecordRejected for a record without them.
    """
    if ids.id_path is None:
        return lambda record, uri, line: (position_id(uri, line), None)  # noqa: ARG005 - the signature of all
    return _event_reader(ids.id_path, ids.routing_path) if ids.is_event else _map_reader(ids.id_path, ids.routing_path)


def _map_reader(id_path: str, routing_path: str | None) -> ReadIds:
    """Return a reader for records whose documents are made by a field map."""
    paths = [(f"field_map.{ID_FIELD}", id_path), *([("routing", routing_path)] if routing_path is not None else [])]
    values_of = RowReader(paths).values

    def read(record: bytes, uri: str, line: int) -> tuple[str, str | None]:  # noqa: ARG001 - the signature of all
        values = values_of(record)
        routing = values[1] if len(values) > 1 else None
        if routing_path is None or (routing is None and is_optional_routing(routing_path)):
            return document_id(values[0]), None
        return document_id(values[0]), routing_value(routing)

    return read


def routing_value(text: Text | None) -> str:
    """Return the routing value of a document; raise RecordRejected if the value is missing or invalid."""
    if text is None:
        raise RecordRejected("the routing value is missing")
    return document_id(text, what="routing value")


def _event_reader(id_path: str, routing_path: str | None) -> ReadIds:
    """Return a reader for records that processors turn into documents."""
    from opensearch_batch.core.ingest.row_documents import member_at
    from opensearch_batch.core.transform.events.event import Event

    id_of = member_at(id_path, "id")
    routing_of = None if routing_path is None else member_at(routing_path, "routing")

    def read(record: bytes, uri: str, line: int) -> tuple[str, str | None]:
        event = Event.of(record)
        routing = None if routing_of is None else routing_of(event) or None
        return id_of(event) or position_id(uri, line), routing

    return read
