"""Ingest of a work item: its rows go to every sink, and the work item is done when all of them have its rows.

The outputs of a job are read after its end, by the ingest of its own work item, so no half-written output is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.dlq_export import write_dlq
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.indexing import index_items, index_sink
from opensearch_batch.core.data_prepper.object_writing import object_items, object_sink
from opensearch_batch.core.data_prepper.origins import OUT, Origins, input_of
from opensearch_batch.core.data_prepper.scan import WorkItem, area_of
from opensearch_batch.core.data_prepper.scan_state import Done, ScanStateFile
from opensearch_batch.core.errors import ConfigError, OutputUnusable
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.engine import Ingest, Locations
from opensearch_batch.core.ingest.event_items import ItemFactory
from opensearch_batch.core.ingest.report import IngestReport
from opensearch_batch.core.ingest.sinks.base import Sink
from opensearch_batch.core.jobs.job_records import CLEAR_TO_PAY, invalidate_output
from opensearch_batch.core.jobs.output_rows import Answered
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Source

UNREAD = "no bucket of the scan looks at what the job wrote; another pipeline reads it"
GONE = "the job's outputs are gone, though an earlier run read them: nothing is written anew, only force pays again"
OUTDATED = "{left_out} of {all} inputs have changed since; newer jobs answer them, so what this one says is left out"
LACKING = "{missing} of {all} objects with records are not there as they were: rows are tagged, not joined"


class WorkItemResult(msgspec.Struct, frozen=True):
    """Result of a work item: one report per sink (none if nothing was read), and remarks for the user."""

    reports: list[IngestReport] = []
    remarks: list[str] = []


class _Selection(msgspec.Struct, frozen=True):
    """The sources of a work item, the rows last; `gone` is the number of outputs that no longer exist."""

    sources: list[Source] = []
    origins: Origins = Origins()
    remarks: list[str] = []
    gone: int = 0


class WorkItemIngest:
    """Writes work items to the sinks of a pipeline.

    Args:
        compiled: the pipeline.
        objects: the store of rows and of our own files.
        cluster: returns the cluster of a sink by its number.
        store: returns the store of a sink by its number and option: ``aws`` or ``dlq``.
        row_errors: finds AI services' errors in rows.
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
        self._scanned = ScanStateFile(objects, compiled.layout)

    def run(self, work_item: WorkItem, answered: Answered | None = None, *, force: bool = False) -> WorkItemResult:
        """Write a work item; there are no reports if the pipeline does not read the outputs of its job.

        Args:
            work_item: the work item.
            answered: the outputs of its job, if it has one.
            force: write everything again.

        Raises:
            ConfigError: an index is wrong.
            FatalError: an output is gone or lacks inputs, or an object changed since the scan.
            RetriableError: a server stayed away.
        """
        selection = self._rows(work_item) if answered is None else self._outputs_of(work_item, answered)
        reports, indexes = list[IngestReport](), self.indexes(work_item.at)
        if selection.sources:
            for number in range(len(self._compiled.pipeline.sinks)):
                reports.append(self._write(number, work_item, selection, force=force))
                # Looked up now: an index that is created anew while other sinks are written lacks these rows.
                indexes[number] = self._index(number, work_item.at)
        read = list(selection.sources[-1].objects) if selection.sources else []
        done = Done(work_item.at, self.done_for(indexes), self._run_key, read, selection.gone)
        self._scanned.note_done(work_item, done)
        return WorkItemResult(reports, selection.remarks)

    def indexes(self, at: datetime) -> list[Index | None]:
        """Return the index of each sink at a time, None if it is absent, or if events name it, or for objects."""
        return [self._index(number, at) for number in range(len(self._compiled.pipeline.sinks))]

    def _index(self, number: int, at: datetime) -> Index | None:
        name = self._compiled.index(number, at)
        return self._cluster(number).index(name) if name else None

    def done_for(self, indexes: Sequence[Index | None]) -> str:
        """Return a digest of what is done to work items, given the index of each sink.

        Indexes that rows or the time name come and go, so they say nothing about what was done.
        """
        return self._compiled.done_for(
            [
                "" if index is None or self._compiled.names_index(number) else index.uuid
                for number, index in enumerate(indexes)
            ]
        )

    def _write(self, number: int, work_item: WorkItem, selection: _Selection, *, force: bool) -> IngestReport:
        """Write the rows to one sink, and its report."""
        sink, items = self._sink(number, work_item, selection.origins)
        reading = Reading(self._objects, self._compiled.read(), self._row_errors)
        report = Ingest(
            self._objects,
            sink,
            self._compiled.documents(number, work_item, items, reading, records=selection.origins.records),
            locations=Locations.of(self._layout.root, self._layout.written(number, work_item.id)),
            # A version of an object that comes back has been overwritten meanwhile.
            identity=(work_item.at.isoformat(),),
        ).run(selection.sources, force=force)
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
        save(self._objects, self._layout.ingest_report(self._run_key, f"{work_item.id}-{number}"), report)
        return report

    def _sink(self, number: int, work_item: WorkItem, origins: Origins) -> tuple[Sink, ItemFactory]:
        """Return a sink, and what it writes of events."""
        options = self._compiled.pipeline.sinks[number][1]
        if isinstance(options, OpenSearchSink):
            sink = index_sink(options, work_item.at, self._objects, self._cluster(number))
            return sink, index_items(options, work_item.at, sink.ensure_index, origins.origin_of)
        return object_sink(options, self._store(number, "aws")), object_items(options, work_item.at)

    def _rows(self, work_item: WorkItem) -> _Selection:
        """Return what is read of objects that were there, behind the records they are joined with.

        Raises:
            ConfigError: no record's object is where their names say.
        """
        rows = Source("objects", work_item.objects)
        records = {item.uri: uri for item in work_item.objects if (uri := self._compiled.records_of(item))}
        names = list(dict.fromkeys(records.values()))
        if not names:
            return _Selection([rows])
        there = [item for uri in names if (item := self._objects.head(uri)) is not None]
        if not there:
            raise ConfigError(
                f"{names[0]}: no records there, nor elsewhere for {len(work_item.objects)} objects like "
                f"{work_item.objects[0].uri}; mend s3_object_name_pattern or include_prefix of s3_enrich"
            )
        return _Selection(
            [Source("inputs", tuple(there)), rows], Origins(records=records), _lacking(len(there), len(names))
        )

    def _outputs_of(self, work_item: WorkItem, answered: Answered) -> _Selection:
        """Return what is read of a job's outputs: those that this pipeline looks at, of inputs that have not changed.

        Raises:
            OutputUnusable: there are fewer outputs than inputs; the job's record says so from then on.
        """
        outputs = self._outputs(work_item, answered)
        gone = max(len(work_item.inputs) - len(outputs), 0)
        if not outputs:
            return _Selection(remarks=[GONE], gone=gone)
        taken = [item for item in outputs if self._looks_at(item)]
        if not taken:
            return _Selection(remarks=[UNREAD])
        asked = {item.uri: uri for item in taken if (uri := input_of(item.uri, work_item.inputs))}
        known = self._scanned.known()
        outdated = {uri for item, uri in zip(work_item.objects, work_item.inputs, strict=True) if known.outdates(item)}
        current = tuple(item for item in taken if asked.get(item.uri) not in outdated)
        remarks = [OUTDATED.format(left_out=len(outdated), all=len(work_item.inputs))] if outdated else []
        if gone:
            remarks.append(GONE)
        if not current:
            return _Selection(remarks=remarks, gone=gone)
        output = Source("output", current)
        if not self._compiled.joins:
            return _Selection([output], Origins(asked), remarks, gone)
        wanted = [uri for uri in work_item.inputs if uri not in outdated]
        there = self._records(work_item, wanted)
        remarks += _lacking(len(there), len(wanted))
        return _Selection([Source("inputs", tuple(there)), output], Origins(asked, asked), remarks, gone)

    def _records(self, work_item: WorkItem, wanted: Sequence[str]) -> list[ObjectInfo]:
        """Return the inputs that are there as their job read them."""
        etags = {item.uri: item.etag for item in work_item.objects}
        found = (self._objects.head(uri) for uri in dict.fromkeys(wanted))
        return [item for item in found if item is not None and etags.get(item.uri, item.etag) == item.etag]

    def _looks_at(self, output: ObjectInfo) -> bool:
        """Say whether the pipeline reads an output: where it lies, or would, as pipelines may share a job."""
        ml, areas = self._compiled.ml, self._compiled.areas(self.at)
        name = output.uri.rpartition("/")[2]
        places = [output.uri, *([f"{ml.output_path.rstrip('/')}/{name}"] if ml else [])]
        found = (area_of(areas, msgspec.structs.replace(output, uri=uri)) for uri in places)
        return any(area is not None and area.selection != "metadata_only" for area in found)

    def _outputs(self, work_item: WorkItem, answered: Answered) -> list[ObjectInfo]:
        """Return the outputs of a job.

        Raises:
            OutputUnusable: there are fewer than inputs; the job's record says so from then on.
        """
        found = [item for uri in answered.outputs for item in self._listed(uri) if item.uri.endswith(OUT)]
        # What was read once may have been removed since: the job is not to blame.
        if len(found) >= len(work_item.inputs) or self._scanned.done(work_item):
            return found
        where = ", ".join(answered.outputs)
        error = answered.unusable(f"{where}: {len(found)} outputs of {len(work_item.inputs)} inputs; {CLEAR_TO_PAY}")
        invalidate_output(self._objects, error, now=time.time())
        raise OutputUnusable(str(error)) from error

    def _listed(self, uri: str) -> list[ObjectInfo]:
        if uri.endswith("/"):
            return list(self._objects.list(uri))
        found = self._objects.head(uri)
        return [] if found is None else [found]


def _lacking(there: int, names: int) -> list[str]:
    return [LACKING.format(missing=names - there, all=names)] if there < names else []
