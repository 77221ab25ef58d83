"""Amazon OpenSearch Serverless: only search collections take an id from outside, and no collection is refreshed.

So without `document_id` no id is sent, as by the original (DocumentIdResolver, 2.17). What was written is then not
found again: whatever repeats a bulk request writes its documents once more.
"""

from __future__ import annotations

from collections.abc import Iterator

from opensearch_batch.core.config.yaml_file import Keys, dotted
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.ingest.event_items import ACTIONS, NAMELESS

_SEARCH_ONLY = "only search collections take an id; others refuse every document that has one: remove it there"
_NO_ID = (
    "without document_id no _id is sent, the row's own neither, because collections for vector search and time series "
    "take none; so a try after an interruption, and rows read again, write what is there once more. Write document_id "
    "if it is a search collection"
)


def is_serverless(sink: OpenSearchSink) -> bool:
    """Say whether a sink writes to a collection."""
    return sink.aws is not None and sink.aws.serverless


def has_ids(sink: OpenSearchSink) -> bool:
    """Say whether a sink's documents are sent with an id."""
    return sink.document_id is not None or not is_serverless(sink)


def serverless_remarks(file: DataPrepperFile) -> Iterator[tuple[int, str]]:
    """Yield what a person should know of collections, by line."""
    for pipeline in file.pipelines:
        for keys, sink in pipeline.sinks:
            if isinstance(sink, OpenSearchSink) and is_serverless(sink):
                for place, text in _remarks(sink):
                    yield file.line((*keys, *place)), f"{dotted((*keys, *place))}: {text}"


def _remarks(sink: OpenSearchSink) -> Iterator[tuple[Keys, str]]:
    if has_ids(sink):
        yield ("document_id",), _SEARCH_ONLY
        return
    yield ("aws", "serverless"), _NO_ID
    places: list[Keys] = [("actions", at, "type") for at in range(len(sink.actions))] or [("action",)]
    actions = [each.type for each in sink.actions] or [sink.action]
    for place, action in zip(places, actions, strict=True):
        if action in ACTIONS - NAMELESS:
            yield place, f"{action} needs an id, so each such row becomes a dead letter; write document_id"
