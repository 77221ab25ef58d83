"""How an s3 sink's options become the settings of its objects, and the items that are written of events."""

from __future__ import annotations

from datetime import datetime

from opensearch_batch.core.data_prepper.file.s3_sink import S3Sink
from opensearch_batch.core.ingest.event_items import ObjectItemFactory, Shape
from opensearch_batch.core.ingest.sinks.s3 import ObjectSettings, ObjectSink
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.transform.expressions.format_string import compile_format, dated


def object_sink(sink: S3Sink, objects: Objects) -> ObjectSink:
    """Return the sink that writes to a store."""
    settings = ObjectSettings(
        sink.codec.encoding(),
        sink.compression,
        event_count=sink.threshold.event_count,
        max_object_bytes=sink.threshold.maximum_size,
        name_prefix=sink.object_key.name_pattern_prefix or "",
    )
    return ObjectSink(objects, settings, name=f"s3://{sink.bucket}/{sink.object_key.path_prefix or ''}")


def object_item_factory(sink: S3Sink, at: datetime) -> ObjectItemFactory:
    """Return what is written of events; dates in the path are of the given time."""
    return ObjectItemFactory(
        compile_format(sink.bucket),
        compile_format(dated(sink.object_key.path_prefix or "", at)),
        default_bucket=sink.default_bucket,
        shape=Shape(None, sink.include_keys, sink.exclude_keys, sink.tags_target_key),
    )
