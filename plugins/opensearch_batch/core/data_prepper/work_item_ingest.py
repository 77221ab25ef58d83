"""Ingests a work item: writes its rows to every sink, then the report with which the run commits it.

The outputs of a job are ingested only after the job has ended, so no half-written output is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

import msgspec

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.dlq_export import write_dlq
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.scan import ScanHead, WorkItem, area_of, scan_head
from opensearch_batch.core.data_prepper.scan_account import WorkItemReport
from opensearch_batch.core.data_prepper.sink_settings import (
    index_item_factory,
    index_sink,
    object_item_factory,
    object_sink,
)
from opensearch_batch.core.errors import ConfigError, OutputUnusable
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.engine import Ingest, Locations
from opensearch_batch.core.ingest.event_items import ItemFactory
from opensearch_batch.core.ingest.sinks.base import Sink
from opensearch_batch.core.jobs.job_records import CLEAR_TO_PAY, invalidate_output
from opensearch_batch.core.jobs.output_rows import JobOutput, list_output
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.objects import Objects, split_uri
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Row, Source

# SageMaker and Bedrock write ``<job folder>/<input key>.out``.
OUTPUT_SUFFIX = ".out"
_EMPTY: Mapping[str, str] = MappingProxyType({})
UNREAD = "the scan does not read the outputs of the job; a pipeline that scans their location ingests them"
GONE = (
    "an earlier run ingested outputs of the job that no longer exist; only a run with force writes them again, "
    "and pays for a new job"
)
OUTDATED = (
    "{outdated} of {all} inputs have changed since the scan that selected them; their outputs are skipped, because "
    "newer jobs replace them"
)
UNJOINED = "{missing} of {all} record objects are missing or have changed; their rows are tagged and not joined"


class Origins(msgspec.Struct, frozen=True):
    """Maps the object of a row to the input of its job, and to the object whose records the row is joined with.

    Ids and joins use the input, because output paths contain the name of the job.
    """

    inputs: Mapping[str, str] = _EMPTY
    records: Mapping[str, str] = _EMPTY

    def origin_of(self, row: Row) -> tuple[str, int]:
        """Return the input and the line from which a row was computed; a new job for the input does not change them."""
        return self.inputs.get(row.uri, row.uri), row.line


def input_of(output: str, inputs: Sequence[str]) -> str | None:
    """Return the input whose key ends the output's name; if several match, the one with the longest key.

    If none matches, return the only input with the same file name, or None if there is not exactly one.
    """
    if len(inputs) == 1:
        return inputs[0]
    name = output.removesuffix(OUTPUT_SUFFIX)
    by_key = [uri for uri in inputs if name.endswith(f"/{split_uri(uri)[1]}")]
    if by_key:
        return max(by_key, key=len)
    by_name = [uri for uri in inputs if uri.rpartition("/")[2] == name.rpartition("/")[2]]
    return by_name[0] if len(by_name) == 1 else None


class _SelectedSources(msgspec.Struct, frozen=True):
    """The sources to ingest; the last source has the rows. `gone` is the number of outputs that no longer exist."""

    sources: list[Source] = []
    origins: Origins = Origins()
    remarks: list[str] = []
    gone: int = 0


class WorkItemIngest:
    """Writes work items to the sinks of a pipeline.

    Args:
        compiled: the pipeline.
        objects: the store of rows and of this package's files.
        cluster: returns the cluster of a sink, given the number of the sink.
        store: returns the store for the option ``aws`` or ``dlq`` of a sink, given the number of the sink.
        row_errors: finds errors of AI services in rows.
        run_key: the run that writes the reports.
        at: the time of the run's scan.
    """

    def __init__(
        self,
        compiled: CompiledPipeline,
        objects: Objects,
        cluster: Callable[[int], Cluster],
        store: Callable[[int, str], Objects],
        *,
        row_errors: RowErrors,
        run_key: str,
        at: datetime,
    ) -> None:
        self._compiled = compiled
        self._objects = objects
        self._cluster = cluster
        self._store = store
        self._row_errors = row_errors
        self._run_key = run_key
        self.at = at
        self._layout = compiled.layout

    def run(self, work_item: WorkItem, job_output: JobOutput | None = None, *, force: bool = False) -> WorkItemReport:
        """Write a work item; there are no reports if the pipeline does not read the outputs of its job.

        Args:
            work_item: the work item.
            job_output: the outputs of the job of the work item, if it has a job.
            force: write everything again.

        Raises:
            ConfigError: an index is missing or does not fit.
            FatalError: outputs are missing, or an object changed since the scan.
            RetriableError: a server is not available.
        """
        selected = self._select_rows(work_item) if job_output is None else self._select_outputs(work_item, job_output)
        reports, indexes = list[IngestReport](), self.indexes(work_item.at)
        if selected.sources:
            for number in range(len(self._compiled.pipeline.sinks)):
                reports.append(self._write(number, work_item, selected, force=force))
                # Read directly after the write: an index recreated during later writes does not contain these rows.
                indexes[number] = self._index(number, work_item.at)
        read = list(selected.sources[-1].objects) if selected.sources else []
        digest = self.processing_digest(indexes)
        report = WorkItemReport(self.at, digest, reports, selected.remarks, read, selected.gone)
        save(self._objects, self._layout.ingest_report(self._run_key, work_item.id), report)
        return report

    def indexes(self, at: datetime) -> list[Index | None]:
        """Return the index of each sink at a time; None for an absent index, a name with keys, or an s3 sink."""
        return [self._index(number, at) for number in range(len(self._compiled.pipeline.sinks))]

    def _index(self, number: int, at: datetime) -> Index | None:
        name = self._compiled.index(number, at)
        return self._cluster(number).index(name) if name else None

    def processing_digest(self, indexes: Sequence[Index | None]) -> str:
        """Return a digest of the processing of work items, given the index of each sink.

        The UUIDs of indexes whose names depend on rows or on the time are omitted, because such indexes change often.
        """
        return self._compiled.processing_digest(
            [
                "" if index is None or self._compiled.index_varies(number) else index.uuid
                for number, index in enumerate(indexes)
            ]
        )

    def _write(self, number: int, work_item: WorkItem, selected: _SelectedSources, *, force: bool) -> IngestReport:
        """Write the rows to one sink; return the report."""
        sink, item_factory = self._sink(number, work_item, selected.origins)
        reading = Reading(self._objects, self._compiled.row_reader(), self._row_errors)
        report = Ingest(
            self._objects,
            sink,
            self._compiled.documents(number, work_item, item_factory, reading, records=selected.origins.records),
            locations=Locations.of(self._layout.root, self._layout.sink(number, work_item.id)),
            # Without it, an object that returns to an earlier version would count as written, although a later version
            # has overwritten its documents.
            identity=(str(work_item.version),),
        ).run(selected.sources, force=force)
        dlq = self._compiled.dlq(number)
        if dlq is not None and report.dead_letters:
            write_dlq(
                self._objects,
                self._store(number, "dlq"),
                dlq,
                queue=report.dead_letters,
                pipeline=self._layout.pipeline,
                index=sink.request.index,
                at=work_item.at,
            )
        return report

    def _sink(self, number: int, work_item: WorkItem, origins: Origins) -> tuple[Sink, ItemFactory]:
        """Return a sink and the factory for its items."""
        options = self._compiled.pipeline.sinks[number][1]
        if isinstance(options, OpenSearchSink):
            sink = index_sink(options, work_item.at, self._objects, self._cluster(number))
            return sink, index_item_factory(options, work_item.at, sink.ensure_index, origins.origin_of)
        return object_sink(options, self._store(number, "aws")), object_item_factory(options, work_item.at)

    def _select_rows(self, work_item: WorkItem) -> _SelectedSources:
        """Return the sources of a work item without a job: its objects, and the record objects for the join.

        Raises:
            ConfigError: none of the record objects exists.
        """
        rows = Source("objects", work_item.objects)
        if self._compiled.enrich_options is None:
            return _SelectedSources([rows])
        records = {item.uri: self._compiled.enrich_options.record_object_of(item) for item in work_item.objects}
        record_uris = list(dict.fromkeys(records.values()))
        existing = [item for uri in record_uris if (item := self._objects.head(uri)) is not None]
        if not existing:
            raise ConfigError(
                f"no record object exists for any of {len(work_item.objects)} objects; {work_item.objects[0].uri} "
                f"needs {record_uris[0]}; correct s3_object_name_pattern or include_prefix of s3_enrich"
            )
        return _SelectedSources(
            [Source("inputs", tuple(existing)), rows],
            Origins(records=records),
            _unjoined(len(existing), len(record_uris)),
        )

    def _select_outputs(self, work_item: WorkItem, job_output: JobOutput) -> _SelectedSources:
        """Return the job outputs that this pipeline reads, except those whose input has changed, and records to join.

        Raises:
            OutputUnusable: there are fewer outputs than inputs; the job record then has the state UNUSABLE.
        """
        head = scan_head(self._objects, self._layout).load()
        outputs = self._list_outputs(work_item, job_output, head)
        gone = max(len(work_item.inputs) - len(outputs), 0)
        if not outputs:
            return _SelectedSources(remarks=[GONE], gone=gone)
        read = [item for item in outputs if self._reads(item)]
        if not read:
            return _SelectedSources(remarks=[UNREAD])
        inputs = {item.uri: uri for item in read if (uri := input_of(item.uri, work_item.inputs))}
        outdated = {
            uri for item, uri in zip(work_item.objects, work_item.inputs, strict=True) if head.is_outdated(item)
        }
        current = tuple(item for item in read if inputs.get(item.uri) not in outdated)
        remarks = [OUTDATED.format(outdated=len(outdated), all=len(work_item.inputs))] if outdated else []
        if gone:
            remarks.append(GONE)
        if not current:
            return _SelectedSources(remarks=remarks, gone=gone)
        output = Source("output", current)
        if self._compiled.enrich_options is None:
            return _SelectedSources([output], Origins(inputs), remarks, gone)
        joined = [uri for uri in work_item.inputs if uri not in outdated]
        unchanged = self._unchanged_inputs(work_item, joined)
        remarks += _unjoined(len(unchanged), len(joined))
        return _SelectedSources([Source("inputs", tuple(unchanged)), output], Origins(inputs, inputs), remarks, gone)

    def _unchanged_inputs(self, work_item: WorkItem, uris: Sequence[str]) -> list[ObjectInfo]:
        """Return the inputs with these URIs that have not changed since the scan."""
        etags = {item.uri: item.etag for item in work_item.objects}
        inputs = (self._objects.head(uri) for uri in dict.fromkeys(uris))
        return [item for item in inputs if item is not None and etags.get(item.uri, item.etag) == item.etag]

    def _reads(self, output: ObjectInfo) -> bool:
        """Return whether the pipeline reads an output of a job.

        Pipelines may share a job, so an output is also looked up by its name below this pipeline's `output_path`.
        """
        ml, areas = self._compiled.ml, self._compiled.areas(self.at)
        name = output.uri.rpartition("/")[2]
        locations = [output.uri, *([f"{ml.output_path.rstrip('/')}/{name}"] if ml else [])]
        covering = (area_of(areas, msgspec.structs.replace(output, uri=uri)) for uri in locations)
        return any(area is not None and area.selection != "metadata_only" for area in covering)

    def _list_outputs(self, work_item: WorkItem, job_output: JobOutput, head: ScanHead) -> list[ObjectInfo]:
        """Return the outputs of a job.

        Raises:
            OutputUnusable: there are fewer outputs than inputs; the job record then has the state UNUSABLE.
        """
        outputs = [
            item
            for uri in job_output.uris
            for item in list_output(self._objects, uri)
            if item.uri.endswith(OUTPUT_SUFFIX)
        ]
        claim = head.claim(work_item)
        # Outputs that an earlier run read may have been removed since.
        if len(outputs) >= len(work_item.inputs) or (claim is not None and claim.done_for):
            return outputs
        where = ", ".join(job_output.uris)
        error = job_output.unusable(
            f"{where}: {len(outputs)} outputs of {len(work_item.inputs)} inputs; {CLEAR_TO_PAY}"
        )
        invalidate_output(self._objects, error, now=time.time())
        raise OutputUnusable(str(error)) from error


def _unjoined(usable: int, total: int) -> list[str]:
    return [UNJOINED.format(missing=total - usable, all=total)] if usable < total else []
