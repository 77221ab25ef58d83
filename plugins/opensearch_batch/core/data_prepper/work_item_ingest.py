"""ingest of a unit: its rows go to every sink, and only when all of them have it is the unit done.

A job's outputs are read after its end, by the ingest of its own unit; so nobody reads what is half written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from opensearch_batch.core.data_prepper.compiled_pipeline import Road
from opensearch_batch.core.data_prepper.dlq_export import write_dlq
from opensearch_batch.core.data_prepper.file.s3_sink import S3Sink
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.origins import OUT, Origins, input_of
from opensearch_batch.core.data_prepper.s3_ingest import S3Ingest
from opensearch_batch.core.data_prepper.scan import Unit, area_of
from opensearch_batch.core.data_prepper.scan_state import Done, Scanned
from opensearch_batch.core.errors import ConfigError, OutputUnusable
from opensearch_batch.core.ingest.engine import Ingest, IngestReport, Locations
from opensearch_batch.core.ingest.event_documents import EventDocuments
from opensearch_batch.core.jobs.job_records import CLEAR_TO_PAY, spoil
from opensearch_batch.core.jobs.output_rows import Answered
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.manifests import save
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.rows import Source
from opensearch_batch.services.row_errors import provider_error

UNREAD = "no bucket of the scan looks at what the job wrote; another pipeline reads it"
GONE = "the job's outputs are gone, though an earlier run read them: nothing is written anew, only force pays again"
OUTDATED = "{left_out} of {all} inputs have changed since; newer jobs answer them, so what this one says is left out"
LACKING = "{missing} of {all} objects with records are not there as they were: rows are tagged, not joined"


class Brought(msgspec.Struct, frozen=True):
    """What became of a unit: an account for each sink, none where nothing was read, and what is to be known of it."""

    reports: list[IngestReport] = []
    remarks: list[str] = []


class _Reading(msgspec.Struct, frozen=True):
    """What is read of a unit, last the rows; `gone` outputs were there once."""

    sources: list[Source] = []
    origins: Origins = Origins()
    remarks: list[str] = []
    gone: int = 0


class UnitIngest:
    """Brings units into the sinks of a pipeline.

    Args:
        road: the pipeline.
        objects: where rows and our own files lie.
        cluster: the cluster of a sink, by its number.
        target: the store of what a sink says: its number, and ``aws`` or ``dlq``.
        run_key: the run whose reports these are.
        at: when the run scanned.
    """

    def __init__(
        self,
        road: Road,
        objects: Objects,
        cluster: Callable[[int], Cluster],
        target: Callable[[int, str], Objects],
        *,
        run_key: str,
        at: datetime,
    ) -> None:
        self._road = road
        self._objects = objects
        self._cluster = cluster
        self._target = target
        self._run_key = run_key
        self.at = at
        self._work = road.work
        self._scanned = Scanned(objects, road.work)

    def run(self, unit: Unit, answered: Answered | None = None, *, force: bool = False) -> Brought:
        """Bring in a unit; there are no accounts where the pipeline does not read a job's outputs.

        Args:
            unit: the unit.
            answered: what its job answered, if it is one.
            force: write everything again.

        Raises:
            ConfigError: an index is wrong.
            FatalError: an output is gone or lacks inputs, an object changed since the scan.
            RetriableError: a server stayed away.
        """
        reading = self._rows(unit) if answered is None else self._answers(unit, answered)
        reports, indexes = list[IngestReport](), self.indexes(unit.at)
        if reading.sources:
            for number in range(len(self._road.pipeline.sinks)):
                reports.append(self._written(number, unit, reading, force=force))
                # As it is now: one that came in its place while other sinks are written has not got these rows.
                indexes[number] = self._index(number, unit.at)
        read = list(reading.sources[-1].objects) if reading.sources else []
        done = Done(unit.at, self.done_for(indexes), self._run_key, read, reading.gone)
        self._scanned.note_done(unit, done)
        return Brought(reports, reading.remarks)

    def indexes(self, at: datetime) -> list[Index | None]:
        """Return each sink's index at a time, None where it is absent, where it has none, or each event names one."""
        return [self._index(number, at) for number in range(len(self._road.pipeline.sinks))]

    def _index(self, number: int, at: datetime) -> Index | None:
        name = self._road.index(number, at)
        return self._cluster(number).index(name) if name else None

    def done_for(self, indexes: Sequence[Index | None]) -> str:
        """Name what is done to units with these indexes, one for each sink.

        Indexes that rows or the time name come and go, and tell nothing of what was done.
        """
        return self._road.done_for(
            [
                "" if index is None or self._road.names_index(number) else index.uuid
                for number, index in enumerate(indexes)
            ]
        )

    def _written(self, number: int, unit: Unit, reading: _Reading, *, force: bool) -> IngestReport:
        sink = self._road.pipeline.sinks[number][1]
        if isinstance(sink, OpenSearchSink):
            report = self._indexed(number, unit, reading, force=force)
        else:
            report = self._stored(number, sink, unit, reading, force=force)
        save(self._objects, self._work.ingest_report(self._run_key, f"{unit.id}-{number}"), report)
        return report

    def _indexed(self, number: int, unit: Unit, reading: _Reading, *, force: bool) -> IngestReport:
        maker = self._road.maker(number, unit, self._objects, origins=reading.origins, row_error=provider_error)
        place = self._work.written(number, unit.id)
        report = Ingest(
            self._objects,
            self._cluster(number),
            request=maker.request,
            locations=Locations.of(self._work.root, place),
            maker=maker,
            # A version that comes back has been overwritten meanwhile.
            identity=(unit.at.isoformat(),),
        ).run(reading.sources, force=force)
        dlq = self._road.dlq(number)
        if dlq is not None and report.dead_letters:
            write_dlq(
                self._objects,
                self._target(number, "dlq"),
                dlq,
                queue=report.dead_letters,
                pipeline=self._work.pipeline,
                index=report.index,
                at=unit.at,
            )
        return report if report.index else msgspec.structs.replace(report, index=self._road.index_pattern(number))

    def _stored(self, number: int, sink: S3Sink, unit: Unit, reading: _Reading, *, force: bool) -> IngestReport:
        def entries() -> EventDocuments:
            return self._road.events(
                number, unit, reading.sources, self._objects, origins=reading.origins, row_error=provider_error
            )

        return S3Ingest(
            self._objects,
            self._target(number, "aws"),
            sink,
            place=self._work.written(number, unit.id),
            decisive=self._road.sink_decisive(number),
            identity=unit.at.isoformat(),
        ).run(reading.sources, entries, force=force)

    def _rows(self, unit: Unit) -> _Reading:
        """Return what is read of objects that were there, behind the records they are joined with.

        Raises:
            ConfigError: no record's object is where their names say.
        """
        rows = Source("objects", unit.objects)
        records = {item.uri: uri for item in unit.objects if (uri := self._road.records_of(item))}
        names = list(dict.fromkeys(records.values()))
        if not names:
            return _Reading([rows])
        there = [item for uri in names if (item := self._objects.head(uri)) is not None]
        if not there:
            raise ConfigError(
                f"{names[0]}: no records there, nor elsewhere for {len(unit.objects)} objects like "
                f"{unit.objects[0].uri}; mend s3_object_name_pattern or include_prefix of s3_enrich"
            )
        return _Reading(
            [Source("inputs", tuple(there)), rows], Origins(records=records), _lacking(len(there), len(names))
        )

    def _answers(self, unit: Unit, answered: Answered) -> _Reading:
        """Return what is read of a job's outputs: those that this pipeline looks at, of inputs that have not changed.

        Raises:
            OutputUnusable: there are fewer outputs than inputs; the job's record says so from then on.
        """
        outputs = self._outputs(unit, answered)
        gone = max(len(unit.inputs) - len(outputs), 0)
        if not outputs:
            return _Reading(remarks=[GONE], gone=gone)
        taken = [item for item in outputs if self._looks_at(item)]
        if not taken:
            return _Reading(remarks=[UNREAD])
        asked = {item.uri: uri for item in taken if (uri := input_of(item.uri, unit.inputs))}
        known = self._scanned.known()
        outdated = {uri for item, uri in zip(unit.objects, unit.inputs, strict=True) if known.outdates(item)}
        current = tuple(item for item in taken if asked.get(item.uri) not in outdated)
        remarks = [OUTDATED.format(left_out=len(outdated), all=len(unit.inputs))] if outdated else []
        if gone:
            remarks.append(GONE)
        if not current:
            return _Reading(remarks=remarks, gone=gone)
        output = Source("output", current)
        if not self._road.joins:
            return _Reading([output], Origins(asked), remarks, gone)
        wanted = [uri for uri in unit.inputs if uri not in outdated]
        there = self._records(unit, wanted)
        remarks += _lacking(len(there), len(wanted))
        return _Reading([Source("inputs", tuple(there)), output], Origins(asked, asked), remarks, gone)

    def _records(self, unit: Unit, wanted: Sequence[str]) -> list[ObjectInfo]:
        """Return the inputs that are there as their job read them."""
        etags = {item.uri: item.etag for item in unit.objects}
        found = (self._objects.head(uri) for uri in dict.fromkeys(wanted))
        return [item for item in found if item is not None and etags.get(item.uri, item.etag) == item.etag]

    def _looks_at(self, output: ObjectInfo) -> bool:
        """Say whether the pipeline reads an output: where it lies, or would, as pipelines may share a job."""
        ml, areas = self._road.ml, self._road.areas(self.at)
        name = output.uri.rpartition("/")[2]
        places = [output.uri, *([f"{ml.output_path.rstrip('/')}/{name}"] if ml else [])]
        found = (area_of(areas, msgspec.structs.replace(output, uri=uri)) for uri in places)
        return any(area is not None and area.selection != "metadata_only" for area in found)

    def _outputs(self, unit: Unit, answered: Answered) -> list[ObjectInfo]:
        """Return the outputs of a job.

        Raises:
            OutputUnusable: there are fewer than inputs; the job's record says so from then on.
        """
        found = [item for uri in answered.outputs for item in self._listed(uri) if item.uri.endswith(OUT)]
        # What was read once may have been removed since: the job is not to blame.
        if len(found) >= len(unit.inputs) or self._scanned.done(unit):
            return found
        where = ", ".join(answered.outputs)
        error = answered.unusable(f"{where}: {len(found)} outputs of {len(unit.inputs)} inputs; {CLEAR_TO_PAY}")
        spoil(self._objects, error, now=time.time())
        raise OutputUnusable(str(error)) from error

    def _listed(self, uri: str) -> list[ObjectInfo]:
        if uri.endswith("/"):
            return list(self._objects.list(uri))
        found = self._objects.head(uri)
        return [] if found is None else [found]


def _lacking(there: int, names: int) -> list[str]:
    return [LACKING.format(missing=names - there, all=names)] if there < names else []
