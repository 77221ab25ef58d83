"""ingest of a work item: its rows go to every sink, and only when all of them have it is the work item done.

A job's outputs are read after its end, by the ingest of its own work item; so nobody reads what is half written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.dlq_export import write_dlq
from opensearch_batch.core.data_prepper.file.s3_sink import S3Sink
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.origins import OUT, Origins, input_of
from opensearch_batch.core.data_prepper.s3_ingest import S3Ingest
from opensearch_batch.core.data_prepper.scan import WorkItem, area_of
from opensearch_batch.core.data_prepper.scan_state import Done, ScanStateFile
from opensearch_batch.core.errors import ConfigError, OutputUnusable
from opensearch_batch.core.ingest.engine import Ingest, IngestReport, Locations
from opensearch_batch.core.ingest.event_documents import EventDocuments
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


class Brought(msgspec.Struct, frozen=True):
    """Result of a work item: one report per sink (none if nothing was read), and remarks for the user."""

    reports: list[IngestReport] = []
    remarks: list[str] = []


class _Reading(msgspec.Struct, frozen=True):
    """What is read of a work item, last the rows; `gone` outputs were there once."""

    sources: list[Source] = []
    origins: Origins = Origins()
    remarks: list[str] = []
    gone: int = 0


class WorkItemIngest:
    """Brings work items into the sinks of a pipeline.

    Args:
        road: the pipeline.
        objects: where rows and our own files lie.
        cluster: the cluster of a sink, by its number.
        target: the store of what a sink says: its number, and ``aws`` or ``dlq``.
        row_errors: finds AI services' errors in rows.
        run_key: the run whose reports these are.
        at: when the run scanned.
    """

    def __init__(
        self,
        compiled: CompiledPipeline,
        objects: Objects,
        cluster: Callable[[int], Cluster],
        target: Callable[[int, str], Objects],
        *,
        row_errors: RowErrors,
        run_key: str,
        at: datetime,
    ) -> None:
        self._compiled = compiled
        self._objects = objects
        self._cluster = cluster
        self._target = target
        self._row_errors = row_errors
        self._run_key = run_key
        self.at = at
        self._layout = compiled.layout
        self._scanned = ScanStateFile(objects, compiled.layout)

    def run(self, work_item: WorkItem, answered: Answered | None = None, *, force: bool = False) -> Brought:
        """Bring in a work item; there are no accounts where the pipeline does not read a job's outputs.

        Args:
            work_item: the work item.
            answered: what its job answered, if it is one.
            force: write everything again.

        Raises:
            ConfigError: an index is wrong.
            FatalError: an output is gone or lacks inputs, an object changed since the scan.
            RetriableError: a server stayed away.
        """
        reading = self._rows(work_item) if answered is None else self._answers(work_item, answered)
        reports, indexes = list[IngestReport](), self.indexes(work_item.at)
        if reading.sources:
            for number in range(len(self._compiled.pipeline.sinks)):
                reports.append(self._written(number, work_item, reading, force=force))
                # As it is now: one that came in its place while other sinks are written has not got these rows.
                indexes[number] = self._index(number, work_item.at)
        read = list(reading.sources[-1].objects) if reading.sources else []
        done = Done(work_item.at, self.done_for(indexes), self._run_key, read, reading.gone)
        self._scanned.note_done(work_item, done)
        return Brought(reports, reading.remarks)

    def indexes(self, at: datetime) -> list[Index | None]:
        """Return each sink's index at a time, None where it is absent, where it has none, or each event names one."""
        return [self._index(number, at) for number in range(len(self._compiled.pipeline.sinks))]

    def _index(self, number: int, at: datetime) -> Index | None:
        name = self._compiled.index(number, at)
        return self._cluster(number).index(name) if name else None

    def done_for(self, indexes: Sequence[Index | None]) -> str:
        """Name what is done to work items with these indexes, one for each sink.

        Indexes that rows or the time name come and go, and tell nothing of what was done.
        """
        return self._compiled.done_for(
            [
                "" if index is None or self._compiled.names_index(number) else index.uuid
                for number, index in enumerate(indexes)
            ]
        )

    def _written(self, number: int, work_item: WorkItem, reading: _Reading, *, force: bool) -> IngestReport:
        sink = self._compiled.pipeline.sinks[number][1]
        if isinstance(sink, OpenSearchSink):
            report = self._indexed(number, work_item, reading, force=force)
        else:
            report = self._stored(number, sink, work_item, reading, force=force)
        save(self._objects, self._layout.ingest_report(self._run_key, f"{work_item.id}-{number}"), report)
        return report

    def _indexed(self, number: int, work_item: WorkItem, reading: _Reading, *, force: bool) -> IngestReport:
        maker = self._compiled.maker(
            number, work_item, self._objects, origins=reading.origins, row_errors=self._row_errors
        )
        place = self._layout.written(number, work_item.id)
        report = Ingest(
            self._objects,
            self._cluster(number),
            request=maker.request,
            locations=Locations.of(self._layout.root, place),
            maker=maker,
            # A version that comes back has been overwritten meanwhile.
            identity=(work_item.at.isoformat(),),
        ).run(reading.sources, force=force)
        dlq = self._compiled.dlq(number)
        if dlq is not None and report.dead_letters:
            write_dlq(
                self._objects,
                self._target(number, "dlq"),
                dlq,
                queue=report.dead_letters,
                pipeline=self._layout.pipeline,
                index=report.index,
                at=work_item.at,
            )
        return report if report.index else msgspec.structs.replace(report, index=self._compiled.index_pattern(number))

    def _stored(
        self, number: int, sink: S3Sink, work_item: WorkItem, reading: _Reading, *, force: bool
    ) -> IngestReport:
        def entries() -> EventDocuments:
            return self._compiled.events(
                number, work_item, reading.sources, self._objects, origins=reading.origins, row_errors=self._row_errors
            )

        return S3Ingest(
            self._objects,
            self._target(number, "aws"),
            sink,
            place=self._layout.written(number, work_item.id),
            decisive=self._compiled.sink_decisive(number),
            identity=work_item.at.isoformat(),
        ).run(reading.sources, entries, force=force)

    def _rows(self, work_item: WorkItem) -> _Reading:
        """Return what is read of objects that were there, behind the records they are joined with.

        Raises:
            ConfigError: no record's object is where their names say.
        """
        rows = Source("objects", work_item.objects)
        records = {item.uri: uri for item in work_item.objects if (uri := self._compiled.records_of(item))}
        names = list(dict.fromkeys(records.values()))
        if not names:
            return _Reading([rows])
        there = [item for uri in names if (item := self._objects.head(uri)) is not None]
        if not there:
            raise ConfigError(
                f"{names[0]}: no records there, nor elsewhere for {len(work_item.objects)} objects like "
                f"{work_item.objects[0].uri}; mend s3_object_name_pattern or include_prefix of s3_enrich"
            )
        return _Reading(
            [Source("inputs", tuple(there)), rows], Origins(records=records), _lacking(len(there), len(names))
        )

    def _answers(self, work_item: WorkItem, answered: Answered) -> _Reading:
        """Return what is read of a job's outputs: those that this pipeline looks at, of inputs that have not changed.

        Raises:
            OutputUnusable: there are fewer outputs than inputs; the job's record says so from then on.
        """
        outputs = self._outputs(work_item, answered)
        gone = max(len(work_item.inputs) - len(outputs), 0)
        if not outputs:
            return _Reading(remarks=[GONE], gone=gone)
        taken = [item for item in outputs if self._looks_at(item)]
        if not taken:
            return _Reading(remarks=[UNREAD])
        asked = {item.uri: uri for item in taken if (uri := input_of(item.uri, work_item.inputs))}
        known = self._scanned.known()
        outdated = {uri for item, uri in zip(work_item.objects, work_item.inputs, strict=True) if known.outdates(item)}
        current = tuple(item for item in taken if asked.get(item.uri) not in outdated)
        remarks = [OUTDATED.format(left_out=len(outdated), all=len(work_item.inputs))] if outdated else []
        if gone:
            remarks.append(GONE)
        if not current:
            return _Reading(remarks=remarks, gone=gone)
        output = Source("output", current)
        if not self._compiled.joins:
            return _Reading([output], Origins(asked), remarks, gone)
        wanted = [uri for uri in work_item.inputs if uri not in outdated]
        there = self._records(work_item, wanted)
        remarks += _lacking(len(there), len(wanted))
        return _Reading([Source("inputs", tuple(there)), output], Origins(asked, asked), remarks, gone)

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
