"""Compiles source and s3_enrich options to what the engine reads: codecs, metadata of rows, areas, join objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from opensearch_batch.core.data_prepper.file.s3_enrich import S3Enrich
from opensearch_batch.core.data_prepper.file.source import Bucket, S3Source
from opensearch_batch.core.data_prepper.options.codecs import RECORDS_EXTENSION
from opensearch_batch.core.data_prepper.scan import Area
from opensearch_batch.core.formats.reading import Read, reader
from opensearch_batch.core.storage.objects import Objects, split_uri
from opensearch_batch.core.transform.enrich import INPUT
from opensearch_batch.core.transform.events.event import Event, key_of
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.rows import Row, Source, SourceEntry


def area_of_bucket(bucket: Bucket, now: datetime) -> Area:
    """Return the area of a scan at a time."""
    since, until = bucket.start_time, bucket.end_time
    if bucket.range is not None:
        since = datetime.fromtimestamp(now.timestamp() - bucket.range, UTC)
    return Area(
        bucket.name,
        bucket.selection,
        bucket.include_prefix,
        bucket.exclude_suffix,
        None if since is None else since.timestamp(),
        None if until is None else until.timestamp(),
    )


def reader_of(source: S3Source, enrich: S3Enrich | None) -> Read:
    """Return the function that reads the rows of a source, and the inputs of a join if there is one."""
    rows = reader(source.codec.format(), source.compression)
    if enrich is None:
        return rows
    records = reader(enrich.codec.format(), enrich.compression)

    def read(objects: Objects, number: int, source: Source) -> Iterator[SourceEntry]:
        return (records if number == INPUT else rows)(objects, number, source)

    return read


def metadata_writer(source: S3Source, *, with_metadata: bool) -> Callable[[Event, Row], None] | None:
    """Return the function that adds the S3 bucket and key to an event, None for none."""
    if not with_metadata or source.disable_s3_metadata_in_event:
        return None
    root = key_of(source.metadata_root_key)

    def write(event: Event, row: Row) -> None:
        bucket, key = split_uri(row.uri)
        event.put((*root, "bucket"), bucket)
        event.put((*root, "key"), key)

    return write


def record_object(enrich: S3Enrich, item: ObjectInfo) -> str:
    """Return the object that s3_enrich joins rows of a foreign job with; as in Data Prepper, its name is derived."""
    name = item.uri.rpartition("/")[2]
    found = re.fullmatch(enrich.s3_object_name_pattern, name)
    prefix = enrich.bucket.filter.include_prefix if enrich.bucket.filter else None
    extension = enrich.codec.extension if enrich.codec.extension.strip() else RECORDS_EXTENSION
    return f"s3://{enrich.bucket.name}/{prefix or ''}{f'{found[1]}.{extension}' if found and found[1] else name}"


def metadata_event(item: ObjectInfo) -> Event:
    """Return the event of an object for ml_inference: bucket, key, time (seconds) and length (bytes)."""
    bucket, key = split_uri(item.uri)
    return Event({"bucket": bucket, "key": key, "time": item.modified, "length": item.size_bytes})
