"""Compiles the options of sinks: index, index body, document ids, actions, included keys, and S3 object settings.

Source: Data Prepper's IndexConfiguration, IndexManager and EventActionResolver (2.17).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from opensearch_batch.core.data_prepper.file.s3_sink import S3Sink
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.documents import OriginOf
from opensearch_batch.core.ingest.event_items import EventFormatter, IndexItemFactory, ObjectItemFactory, Shape
from opensearch_batch.core.ingest.request import MAX_BODY_BYTES, Action, IngestRequest
from opensearch_batch.core.ingest.sinks.opensearch import IndexSink
from opensearch_batch.core.ingest.sinks.s3 import ObjectSettings, ObjectSink
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.objects import Objects, Stored
from opensearch_batch.core.transform.events.event import Event, EventError, key_of
from opensearch_batch.core.transform.expressions.expression import compile_condition
from opensearch_batch.core.transform.expressions.format_string import compile_format, dated


def index_depends_on_event(sink: OpenSearchSink) -> bool:
    """Return whether the index name contains keys of the event."""
    return "${" in sink.index


def index_name(sink: OpenSearchSink, text: str, at: datetime) -> str:
    """Return the name of an index; `at` is the time for its date patterns."""
    return normalized_name(sink, dated(text, at))


def normalized_name(sink: OpenSearchSink, name: str) -> str:
    """Return an index name: with `normalize_index`, in lower case and without forbidden characters."""
    if not sink.normalize_index:
        return name
    kept = "".join(character for character in name.lower() if character not in '[]"*\\<>|,/? #')
    return kept.lstrip("-_+")


def index_body(sink: OpenSearchSink, objects: Objects) -> dict[str, Any] | None:
    """Return the body of an index, None if none is configured; raise ConfigError if its template cannot be read."""
    template = _template(sink, objects)
    if sink.template_type == "index-template":
        template = template.get("template", template)
    settings = dict(template.get("settings", {}))
    for name in ("number_of_shards", "number_of_replicas"):
        if value := getattr(sink, name):
            settings[f"index.{name}"] = value
    body = {
        "settings": settings,
        "mappings": template.get("mappings", {}),
        "aliases": template.get("aliases", {}),
    }
    return {name: value for name, value in body.items() if value} or None


def _template(sink: OpenSearchSink, objects: Objects) -> dict[str, Any]:
    if sink.template_content:
        return dict(json.loads(sink.template_content))
    name = sink.template_file
    if not name:
        return {}
    try:
        stored = objects.read(name) if name.startswith("s3://") else Stored(Path(name).read_bytes(), "")
        template = json.loads(stored.content) if stored is not None else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"template_file {name} cannot be read: {error}") from error
    if not isinstance(template, dict):
        raise ConfigError(f"template_file {name}: not found, or not a JSON object; upload the template")
    return template


def index_sink(sink: OpenSearchSink, at: datetime, objects: Objects, cluster: Cluster) -> IndexSink:
    """Return the sink that writes to a cluster; `at` is the time for date patterns in the index name."""
    request = IngestRequest(
        "" if index_depends_on_event(sink) else index_name(sink, sink.index, at),
        {},
        index_body=index_body(sink, objects),
        max_body_bytes=min(MAX_BODY_BYTES, sink.bulk_bytes or MAX_BODY_BYTES),
    )
    # If the index name contains keys of the event, reports show a wildcard pattern that matches all indexes.
    name = request.index or f"{sink.index.partition('${')[0]}*"
    return IndexSink(objects, cluster, request, name=name, infers_vectors=True, refreshes=not sink.is_serverless)


def index_varies(sink: OpenSearchSink) -> bool:
    """Return whether the index name contains keys of the event or a date, so that a sink writes to several indexes."""
    return index_depends_on_event(sink) or "%{" in sink.index


def index_item_factory(
    sink: OpenSearchSink, at: datetime, ensure_index: Callable[[str], None], origin_of: OriginOf
) -> IndexItemFactory:
    """Return the factory of bulk items for events; `at` is the time for date patterns in the index name."""
    index: EventFormatter | None = None
    if index_depends_on_event(sink):
        name = compile_format(sink.index)

        def index(event: Event) -> str:
            return index_name(sink, name(event), at)

    return IndexItemFactory(
        id_of=_format(sink.document_id),
        sends_ids=sink.sends_ids,
        routing=_format(sink.routing),
        action=_action(sink),
        index=index,
        shape=Shape(
            key_of(sink.document_root_key) if sink.document_root_key else None,
            sink.include_keys,
            sink.exclude_keys,
            sink.tags_target_key,
        ),
        ensure_index=ensure_index,
        origin_of=origin_of,
    )


def _format(text: str | None) -> EventFormatter | None:
    """Compile a format that renders an empty string, which is no id, if a key is missing."""
    if text is None:
        return None
    compiled = compile_format(text)

    def format_(event: Event) -> str:
        try:
            return compiled(event)
        except EventError:
            return ""

    return format_


def _action(sink: OpenSearchSink) -> EventFormatter | Action:
    """Return the action, or a function that returns the first action whose condition holds, else the last one."""
    if not sink.actions:
        if "${" in sink.action:
            return compile_format(sink.action)
        return cast("Action", sink.action)
    actions = [(compile_condition(each.when), compile_format(each.type)) for each in sink.actions]

    def action(event: Event) -> str:
        action_type = next((action_type for holds, action_type in actions if holds(event)), actions[-1][1])
        return action_type(event).lower()

    return action


def object_sink(sink: S3Sink, objects: Objects) -> ObjectSink:
    """Return the sink that writes to an object store."""
    settings = ObjectSettings(
        sink.codec,
        sink.compression,
        event_count=sink.threshold.event_count,
        max_object_bytes=sink.threshold.maximum_size,
        name_prefix=sink.object_key.name_pattern_prefix or "",
    )
    return ObjectSink(objects, settings, name=f"s3://{sink.bucket}/{sink.object_key.path_prefix or ''}")


def object_item_factory(sink: S3Sink, at: datetime) -> ObjectItemFactory:
    """Return the factory of object items for events; `at` is the time for date patterns in the path."""
    return ObjectItemFactory(
        compile_format(sink.bucket),
        compile_format(dated(sink.object_key.path_prefix or "", at)),
        default_bucket=sink.default_bucket,
        shape=Shape(None, sink.include_keys, sink.exclude_keys, sink.tags_target_key),
    )
