"""Compiles a pipeline of a Data Prepper file for the engine: areas, flows, joins, documents and indexes.

Each task compiles the file again, so tasks do not exchange any part of the file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec

from opensearch_batch.core.data_prepper.file.ml_inference import PREDICTION_MEMBERS, MlInference, input_event
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile, DataPrepperPipeline
from opensearch_batch.core.data_prepper.file.s3_enrich import S3Enrich
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.options.aws import S3Dlq
from opensearch_batch.core.data_prepper.scan import Area, ListedObject, WorkItem, area_of
from opensearch_batch.core.data_prepper.sink_settings import index_depends_on_event, index_name, index_varies
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.formats.reading import Read, reader
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.event_documents import EventDocumentFactory, EventOptions
from opensearch_batch.core.ingest.event_items import ItemFactory
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, split_uri
from opensearch_batch.core.transform.enrich import INPUT, Enrich
from opensearch_batch.core.transform.events.event import Event, key_of
from opensearch_batch.core.transform.expressions.expression import compile_condition
from opensearch_batch.core.transform.flow import DROPPED, Flow
from opensearch_batch.core.transform.prediction_fields import prediction_fields
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.rows import Row, Source, SourceEntry

DEFAULT_FOLDER = "opensearch-batch"


class CompiledPipeline:
    """A compiled pipeline of a Data Prepper file. Sinks and buckets are numbered from 0, in the order of the file."""

    def __init__(self, file: DataPrepperFile, pipeline: DataPrepperPipeline) -> None:
        self.file = file
        self.pipeline = pipeline
        self.source = pipeline.source

    @classmethod
    def load(cls, path: Path, name: str, location: str = "") -> CompiledPipeline:
        """Read a file and compile a pipeline; raise ConfigError if the file is invalid, or has no such pipeline.

        `location` is what the file is a copy of.
        """
        file = DataPrepperFile(path, location)
        for pipeline in file.pipelines:
            if pipeline.name == name:
                return cls(file, pipeline)
        raise ConfigError(f"{path}: no pipeline {name}; the DAG was parsed from an older version of the file")

    @cached_property
    def ml(self) -> MlInference | None:
        """The options of ml_inference, None if the pipeline submits no jobs."""
        return next((options for _, _, options in self.pipeline.processors if isinstance(options, MlInference)), None)

    @property
    def service(self) -> str | None:
        """The AI service, None if the pipeline submits no jobs."""
        return None if self.ml is None else self.ml.service_name

    @property
    def layout(self) -> Layout:
        """Layout of this package's files: below `work_prefix`, else in the bucket of the job outputs or rows."""
        prefix = self.file.settings.work_prefix
        if prefix is None:
            bucket = split_uri(self.ml.output_path)[0] if self.ml else self.source.buckets[0].name
            prefix = f"s3://{bucket}/{DEFAULT_FOLDER}"
        return Layout(prefix, self.pipeline.name)

    def areas(self, now: datetime) -> list[Area]:
        """Return the areas that a scan reads at the time `now`."""
        return [bucket.area(now) for bucket in self.source.buckets]

    def output_bucket_number(self) -> int | None:
        """Return the number of the source bucket that contains the job outputs, ignoring times; None if none does."""
        if self.ml is None:
            return None
        buckets = self.source.buckets
        areas = [
            Area(bucket.name, bucket.selection, bucket.include_prefix, bucket.exclude_suffix) for bucket in buckets
        ]
        area = area_of(areas, ObjectInfo(f"{self.ml.output_path.rstrip('/')}/job/input.out", 1, ""))
        return None if area is None else areas.index(area)

    def job_input(self, listed: ListedObject) -> str | None:
        """Return the URI that a job reads, None if no job does; raise ConfigError if the event lacks ``input_key``."""
        ml, event = self.ml, input_event(listed.item)
        if ml is None or self._flow_before_ml.run(event) == DROPPED or not self._ml_when(event):
            return None
        bucket, key = event.value(("bucket",)), event.value(key_of(ml.input_key or "key"))
        if not isinstance(key, str) or not key:
            raise ConfigError(
                f"{listed.item.uri}: the event has no object key at {ml.input_key or 'key'}; correct input_key"
            )
        return f"s3://{bucket}/{key}"

    def flow(self) -> Flow:
        """Return the flow of rows: the processors after the join (without a join, all), the routes and the sinks."""
        processors = self._row_processors()
        join = next((at for at, (_, options) in enumerate(processors) if isinstance(options, S3Enrich)), -1)
        routes = [(name, compile_condition(text)) for name, text in self.pipeline.routes]
        sinks = [sink.routes for _, sink in self.pipeline.sinks]
        return Flow([(name, options.compile()) for name, options in processors[join + 1 :]], routes, sinks)

    @property
    def identity(self) -> list[Any]:
        """All options of the pipeline that affect the document of a row."""
        processors = [[name, options] for name, options in self._row_processors()]
        routes, source = self.pipeline.routes, self.source
        read = [source.codec, source.compression, source.metadata_root_key, source.disable_s3_metadata_in_event]
        return msgspec.to_builtins([processors, routes, read], enc_hook=str)  # type: ignore[no-any-return] # a list, like the argument

    def sink_identity(self, number: int) -> list[Any]:
        """Return all options of the pipeline and of a sink that affect the documents of the sink."""
        sink = self.pipeline.sinks[number][1]
        options = {name: getattr(sink, name, None) for name in _IDENTITY_OPTIONS}
        return [*self.identity, number, msgspec.to_builtins(options, enc_hook=str)]

    def processing_digest(self, uuids: Sequence[str]) -> str:
        """Return a digest of options and index UUIDs; if it changes, work items are processed again."""
        if self.source.delete_s3_objects_on_read:
            # Deleted objects cannot be processed again.
            return "read and deleted"
        sinks = [self.sink_identity(number) for number in range(len(self.pipeline.sinks))]
        # The buckets decide which outputs of jobs are read.
        buckets = msgspec.to_builtins(self.source.buckets if self.ml else (), enc_hook=str)
        return digest(json.dumps([sinks, buckets], sort_keys=True), *uuids)

    def row_reader(self) -> Read:
        """Return the function that reads the rows and, for s3_enrich, the input records."""
        rows = reader(self.source.codec, self.source.compression)
        if self.enrich_options is None:
            return rows
        records = reader(self.enrich_options.codec, self.enrich_options.compression)

        def read(objects: Objects, number: int, source: Source) -> Iterator[SourceEntry]:
            return (records if number == INPUT else rows)(objects, number, source)

        return read

    def enrich(self) -> Enrich | None:
        """Return the join with the inputs, or None if there is none."""
        options = self.enrich_options
        if options is None:
            return None
        return Enrich(
            self._flow_before(S3Enrich),
            correlation=key_of(options.correlation_keys[0]),
            merged=[key_of(key) for key in options.keys_to_merge],
            condition=compile_condition(options.enrich_when),
            tags_on_failure=options.tags_on_failure,
        )

    def documents(
        self,
        number: int,
        work_item: WorkItem,
        item_factory: ItemFactory,
        reading: Reading,
        *,
        records: Mapping[str, str],
    ) -> EventDocumentFactory:
        """Return the factory of the documents of a work item for a sink.

        For s3_enrich, `records` maps the URI of each output object to the URI of the input object of its job.
        """
        options = EventOptions(
            item_factory,
            number,
            add_metadata=self._metadata_writer() if work_item.with_metadata else None,
            enrich=self.enrich(),
            records=records,
            unparsed_arrays=isinstance(self.pipeline.sinks[number][1], OpenSearchSink),
        )
        return EventDocumentFactory(self.flow, options, identity=self.sink_identity(number), reading=reading)

    def index(self, number: int, at: datetime) -> str:
        """Return the index name of an opensearch sink; empty if it contains keys of the event, or for an s3 sink."""
        sink = self.pipeline.sinks[number][1]
        if not isinstance(sink, OpenSearchSink) or index_depends_on_event(sink):
            return ""
        return index_name(sink, sink.index, at)

    def index_varies(self, number: int) -> bool:
        """Return whether the index name of a sink contains keys of the event or a date."""
        sink = self.pipeline.sinks[number][1]
        return isinstance(sink, OpenSearchSink) and index_varies(sink)

    def dlq(self, number: int) -> S3Dlq | None:
        """Return the DLQ to which dead letters of a sink are exported, or None if the sink has no DLQ."""
        sink = self.pipeline.sinks[number][1]
        return sink.dlq if isinstance(sink, OpenSearchSink) else None

    def prediction_fields(self) -> list[str]:
        """Return the fields to which processors copy predictions."""
        processors = ((name, options) for _, name, options in self.pipeline.processors)
        return prediction_fields(processors, PREDICTION_MEMBERS)

    @cached_property
    def enrich_options(self) -> S3Enrich | None:
        """The options of s3_enrich, None if rows are not joined."""
        return next((options for _, options in self._row_processors() if isinstance(options, S3Enrich)), None)

    def _metadata_writer(self) -> Callable[[Event, Row], None] | None:
        """Return the function that adds the S3 bucket and key to an event, None if the source disables it."""
        if self.source.disable_s3_metadata_in_event:
            return None
        root = key_of(self.source.metadata_root_key)

        def write(event: Event, row: Row) -> None:
            bucket, key = split_uri(row.uri)
            event.put((*root, "bucket"), bucket)
            event.put((*root, "key"), key)

        return write

    def _row_processors(self) -> list[tuple[str, Any]]:
        """Return the processors of rows: all except ml_inference, which processes the inputs of jobs."""
        return [
            (name, options) for _, name, options in self.pipeline.processors if not isinstance(options, MlInference)
        ]

    def _flow_before(self, kind: type) -> Flow:
        """Return the flow of the processors before the first processor whose options are of this type."""
        before = takewhile(lambda processor: not isinstance(processor[2], kind), self.pipeline.processors)
        return Flow([(name, options.compile()) for _, name, options in before if hasattr(options, "compile")])

    @cached_property
    def _flow_before_ml(self) -> Flow:
        """The processors before ml_inference, compiled once; a scan runs them for each object."""
        return self._flow_before(MlInference)

    @cached_property
    def _ml_when(self) -> Callable[[Event], bool]:
        return compile_condition(self.ml.ml_when if self.ml else None)


_IDENTITY_OPTIONS = (
    "index",
    "document_id",
    "routing",
    "action",
    "actions",
    "document_root_key",
    "include_keys",
    "exclude_keys",
    "tags_target_key",
    "routes",
    "normalize_index",
    "bucket",
    "codec",
    "object_key",
    "compression",
    "threshold",
)


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.fromtimestamp(time.time(), UTC)
