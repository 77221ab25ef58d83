"""Amazon OpenSearch Serverless: only search collections accept document ids, and no collection can be refreshed.

Without `document_id` no id is sent, as in Data Prepper (DocumentIdResolver, 2.17). Then a repeated bulk request creates
duplicates.
"""

from __future__ import annotations

from collections.abc import Iterator

from opensearch_batch.core.config.yaml_file import Keys, dotted
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.ingest.event_items import ACTIONS, NAMELESS

_SEARCH_ONLY = "only search collections accept an id, others reject every document with one; remove it for those"
_NO_ID = (
    "without document_id no _id is sent, not even that of the row, because collections for vector search and time "
    "series accept none; so a retry after an interruption, and rows that are read again, create duplicates. Write "
    "document_id if it is a search collection"
)


def is_serverless(sink: OpenSearchSink) -> bool:
    """Say whether a sink writes to a collection."""
    return sink.aws is not None and sink.aws.serverless


def has_ids(sink: OpenSearchSink) -> bool:
    """Say whether documents are sent with an id."""
    return sink.document_id is not None or not is_serverless(sink)


def serverless_remarks(file: DataPrepperFile) -> Iterator[tuple[int, str]]:
    """Yield remarks on collections, by line."""
    for pipeline in file.pipelines:
        for keys, sink in pipeline.sinks:
            if isinstance(sink, OpenSearchSink) and is_serverless(sink):
                for inner, text in _remarks(sink):
                    yield file.line((*keys, *inner)), f"{dotted((*keys, *inner))}: {text}"


def _remarks(sink: OpenSearchSink) -> Iterator[tuple[Keys, str]]:
    if has_ids(sink):
        yield ("document_id",), _SEARCH_ONLY
        return
    yield ("aws", "serverless"), _NO_ID
    locations: list[Keys] = [("actions", at, "type") for at in range(len(sink.actions))] or [("action",)]
    actions = [each.type for each in sink.actions] or [sink.action]
    for inner, action in zip(locations, actions, strict=True):
        if action in ACTIONS - NAMELESS:
            yield inner, f"{action} needs an id, so each such row becomes a dead letter; write document_id"
