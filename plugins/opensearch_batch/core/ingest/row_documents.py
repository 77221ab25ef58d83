"""A pipeline file of ours may make documents as Data Prepper does: its processors change the row that holds a record.

Their options are read as in a Data Prepper file, so processors move from one file to the other as they are written. A
row for which `when` does not hold is counted, and never lost without a word.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.config.option_types import Plugin, decode
from opensearch_batch.core.config.reader import Reader
from opensearch_batch.core.config.yaml_file import Keys, YamlFile
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.formats.lines import Read, read_rows
from opensearch_batch.core.ingest.documents import Place
from opensearch_batch.core.ingest.event_documents import EventDocumentFactory, EventDocuments
from opensearch_batch.core.ingest.event_items import OfEvent, Writing, text_of
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.transform.events.event import Event, Key
from opensearch_batch.core.transform.expressions.expression import compile_condition
from opensearch_batch.core.transform.field_map import ID_FIELD, document_id
from opensearch_batch.core.transform.flow import Flow
from opensearch_batch.core.transform.json_path import PlainPath
from opensearch_batch.core.transform.prediction_fields import prediction_fields
from opensearch_batch.core.transform.processors import PROCESSORS
from opensearch_batch.core.transform.processors.base import ProcessorOptions
from opensearch_batch.core.transform.processors.unavailable import OTHER_PROCESSORS
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Source

SpecStruct = Sequence[Mapping[str, Any]]
WHEN = "when"
_NOT_HERE = {
    "ml_inference": "batch_predict of this file makes the jobs; remove it",
    "s3_enrich": "a row holds its record already; remove it",
}
_PROCESSOR = Plugin("processor", PROCESSORS, {**OTHER_PROCESSORS, **_NOT_HERE})


def read_processors(file: YamlFile, keys: Keys) -> list[dict[str, Any]]:
    """Return the processors at a place of a file, their options in plain values with all defaults.

    Raises:
        ConfigError: there is no such processor, or its options cannot work; with file, line and option.
    """
    reader = Reader(file)
    found = []
    for at, node in enumerate(reader.elements(file.at(keys), keys)):
        place, options = reader.plugin(node, _PROCESSOR, (*keys, at))
        reader.check_compiles(node.value[0][1], place, options)
        found.append({str(place[-1]): msgspec.to_builtins(options)})
    return found


def options_of(processors: SpecStruct) -> list[tuple[str, ProcessorOptions]]:
    """Return processors by name and options.

    Raises:
        ConfigError: one is none.
    """
    return [_options(f"processors[{at}]", said) for at, said in enumerate(processors)]


def _options(place: str, said: Mapping[str, Any]) -> tuple[str, ProcessorOptions]:
    name = next(iter(said), "")
    if len(said) != 1 or name not in PROCESSORS:
        raise ConfigError(f"{place}: one of {', '.join(PROCESSORS)} is to stand here, with its options")
    try:
        return name, msgspec.convert(said[name] or {}, PROCESSORS[name], strict=False, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}.{name}: {error}") from None


def vector_fields_of(processors: SpecStruct, members: Container[str]) -> list[str]:
    """Return the fields that processors copy predictions to; rows hold those in these members."""
    return prediction_fields(options_of(processors), members)


def member_at(path: str, what: str) -> OfEvent:
    """Return what gives the text at a path of an event, empty where there is none, null or an empty text.

    What it gives raises RecordRejected for an array or object.

    Raises:
        ConfigError: the path leads to no member of an event.
    """
    key = _key(path, what)

    def text(event: Event) -> str:
        found = text_of(event.find(key))
        return "" if found is None or found == b'""' else document_id(found, what=what)

    return text


def _key(path: str, what: str) -> Key:
    steps = PlainPath.parse(path).steps
    if not steps or any(isinstance(step, int) and step < 0 for step in steps):
        raise ConfigError(f"{what} {path!r} leads to no member of a row; write names and indexes, like $.meta.id")
    return tuple(map(str, steps))


def row_flow(request: IngestRequest) -> Flow:
    """Return what happens to a row.

    Raises:
        ConfigError: a processor or the condition cannot be compiled.
    """
    steps = [(name, options.compile()) for name, options in options_of(request.processors or ())]
    if request.when is None:
        return Flow(steps)
    return Flow(steps, [(WHEN, compile_condition(request.when))], [(WHEN,)])


def row_writing(request: IngestRequest, place: Place) -> Writing:
    """Return what is written of a row that went through them."""
    named = request.field_map.get(ID_FIELD)
    return Writing(
        id_of=None if named is None else member_at(named, "id"),
        routing=None if request.routing is None else member_at(request.routing, "routing"),
        action=request.op_type,
        place=place,
    )


def row_documents(
    request: IngestRequest,
    sources: Sequence[Source],
    *,
    objects: Objects,
    row_errors: RowErrors,
    place: Place,
    read: Read = read_rows,
) -> EventDocuments:
    """Return the documents of rows; the named arguments are those of `Documents`."""
    writing = row_writing(request, place)
    return EventDocuments(row_flow(request), writing, 0, sources, objects=objects, read=read, row_errors=row_errors)


def row_document_factory(
    request: IngestRequest, *, objects: Objects, read: Read, row_errors: RowErrors, place: Place
) -> EventDocumentFactory:
    """Return what makes the documents of an ingest; the named arguments are those of `Documents`."""
    return EventDocumentFactory(
        request,
        flow=lambda: row_flow(request),
        writing=lambda named: row_writing(request, place),  # noqa: ARG005 - the request names the index
        decisive=[
            request.processors,
            request.when,
            request.field_map,
            request.op_type,
            request.ingest_pipeline,
            request.routing,
        ],
        remedy="when does not hold for them; mend it where they should be written",
        objects=objects,
        read=read,
        row_errors=row_errors,
    )
