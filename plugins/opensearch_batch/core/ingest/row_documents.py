"""Makes documents from output rows with the processors of a pipeline file; each output row contains its record.

Options are read as in a Data Prepper file, so processors can be copied from one file to the other. A row for which
`when` does not hold is counted as unrouted.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.config.option_types import Plugin, decode
from opensearch_batch.core.config.reader import Reader
from opensearch_batch.core.config.yaml_file import Keys, YamlFile
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.event_documents import EventDocumentFactory, EventDocuments, EventOptions
from opensearch_batch.core.ingest.event_items import EventFormatter, IndexItemFactory, text_of
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.transform.events.event import Event, Key
from opensearch_batch.core.transform.expressions.expression import compile_condition
from opensearch_batch.core.transform.field_map import document_id
from opensearch_batch.core.transform.flow import Flow
from opensearch_batch.core.transform.json_path import PlainPath
from opensearch_batch.core.transform.map_paths import ID_FIELD
from opensearch_batch.core.transform.prediction_fields import prediction_fields
from opensearch_batch.core.transform.processors import PROCESSORS
from opensearch_batch.core.transform.processors.base import ProcessorOptions
from opensearch_batch.core.transform.processors.unsupported import UNSUPPORTED_PROCESSORS
from opensearch_batch.core.types.rows import Source

Processors = Sequence[Mapping[str, Any]]
WHEN = "when"
_UNSUPPORTED = {
    "ml_inference": "remove this processor; batch_predict of this file submits the jobs",
    "s3_enrich": "remove this processor; output rows already contain their records",
}
_PROCESSOR = Plugin("processor", PROCESSORS, {**UNSUPPORTED_PROCESSORS, **_UNSUPPORTED})


def read_processors(file: YamlFile, keys: Keys) -> list[dict[str, Any]]:
    """Return the processors in a file, as plain values with all defaults; raise ConfigError for a mistake."""
    reader = Reader(file)
    processors = []
    for number, node in enumerate(reader.elements(file.node(keys), keys)):
        location, options = reader.plugin(node, _PROCESSOR, (*keys, number))
        reader.check_compiles(node.value[0][1], location, options)
        processors.append({str(location[-1]): msgspec.to_builtins(options)})
    return processors


def options_of(processors: Processors) -> list[tuple[str, ProcessorOptions]]:
    """Return the name and options of each processor; raise ConfigError if a processor or an option is invalid."""
    return [_options(f"processors[{number}]", configured) for number, configured in enumerate(processors)]


def _options(location: str, configured: Mapping[str, Any]) -> tuple[str, ProcessorOptions]:
    name = next(iter(configured), "")
    if len(configured) != 1 or name not in PROCESSORS:
        raise ConfigError(f"{location}: expected one of {', '.join(PROCESSORS)}, with its options")
    try:
        return name, msgspec.convert(configured[name] or {}, PROCESSORS[name], strict=False, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{location}.{name}: {error}") from None


def vector_fields_of(processors: Processors, members: Container[str]) -> list[str]:
    """Return the fields to which processors copy predictions; `members` are the row's members with predictions."""
    return prediction_fields(options_of(processors), members)


def member_at(path: str, option: str) -> EventFormatter:
    """Return a function that reads the string or number at a path of an event as text, ``""`` if it is absent or null.

    The function raises RecordRejected, naming the `option`, for an array, an object or a text that is too long. Raise
    ConfigError for a path that names no member of an event.
    """
    key = _key(path, option)

    def text(event: Event) -> str:
        value = text_of(event.find(key))
        return "" if value is None or value == b'""' else document_id(value, what=option)

    return text


def _key(path: str, option: str) -> Key:
    steps = PlainPath.parse(path).steps
    if not steps or any(isinstance(step, int) and step < 0 for step in steps):
        raise ConfigError(
            f"{option} {path!r} does not name a member of a row; write member names and positions, like $.ids[0]"
        )
    return tuple(map(str, steps))


def row_flow(request: IngestRequest) -> Flow:
    """Return the flow of a request, with a route for its condition; raise ConfigError if a part does not compile."""
    steps = [(name, options.compile()) for name, options in options_of(request.processors or ())]
    if request.when is None:
        return Flow(steps)
    return Flow(steps, [(WHEN, compile_condition(request.when))], [(WHEN,)])


def _event_options(request: IngestRequest, reading: Reading, *, unparsed_arrays: bool) -> EventOptions:
    id_path = request.field_map.get(ID_FIELD)
    items = IndexItemFactory(
        id_of=None if id_path is None else member_at(id_path, "id"),
        routing=None if request.routing is None else member_at(request.routing, "routing"),
        action=request.op_type,
        origin_of=reading.origin_of,
        version=request.version,
    )
    return EventOptions(items, unparsed_arrays=unparsed_arrays)


def row_documents(request: IngestRequest, sources: Sequence[Source], reading: Reading) -> EventDocuments:
    """Return the documents of sources for a test of a pipeline file or a replay, which do not use the ingest engine."""
    return EventDocuments(row_flow(request), _event_options(request, reading, unparsed_arrays=False), sources, reading)


def row_document_factory(request: IngestRequest, reading: Reading) -> EventDocumentFactory:
    """Return the factory that makes the documents of an ingest."""
    return EventDocumentFactory(
        lambda: row_flow(request),
        _event_options(request, reading, unparsed_arrays=True),
        identity=[
            request.processors,
            request.when,
            request.field_map,
            request.op_type,
            request.ingest_pipeline,
            request.routing,
        ],
        reading=reading,
        remedy="the condition `when` does not hold for them; correct it if they should be indexed",
    )
