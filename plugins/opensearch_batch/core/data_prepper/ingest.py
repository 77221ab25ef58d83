"""ingest of a unit: its rows go to every sink, and only when all of them have it is the unit done.

A job's outputs are read after its end, by the ingest of its own unit; so nobody reads what is half written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from opensearch_batch.core.cluster import Cluster, Index
from opensearch_batch.core.data_prepper.documents import EventDocuments
from opensearch_batch.core.data_prepper.letters import write_dlq
from opensearch_batch.core.data_prepper.road import Road
from opensearch_batch.core.data_prepper.s3_ingest import S3Ingest
from opensearch_batch.core.data_prepper.s3_sink import S3Sink
from opensearch_batch.core.data_prepper.scan import Unit, area_of
from opensearch_batch.core.data_prepper.scanned import Done, Scanned
from opensearch_batch.core.data_prepper.sinks import OpenSearchSink
from opensearch_batch.core.errors import OutputUnusable
from opensearch_batch.core.ingest import Ingest, IngestReport, Locations
from opensearch_batch.core.job import CLEAR_TO_PAY, spoil
from opensearch_batch.core.manifest import save
from opensearch_batch.core.objects import ObjectInfo, Objects, find
from opensearch_batch.core.output_rows import Answered
from opensearch_batch.core.rows import Source
from opensearch_batch.services.row_errors import provider_error

OUT = ".out"


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

    def run(self, unit: Unit, answered: Answered | None = None, *, force: bool = False) -> list[IngestReport]:
        """Bring in a unit; return an account for each sink, none where the pipeline does not read a job's outputs.

        Args:
            unit: the unit.
            answered: what its job answered, if it is one.
            force: write everything again.

        Raises:
            ConfigError: an index is wrong.
            FatalError: an output is gone or lacks inputs, an object changed since the scan.
            RetriableError: a server stayed away.
        """
        sources = self._sources(unit, answered)
        reports = [] if sources is None else self._written(unit, sources, force=force)
        read = list(sources[-1].objects) if sources else []
        self._scanned.note_done(unit, Done(self.done_for(self.indexes()), self._run_key, read))
        return reports

    def indexes(self) -> list[Index | None]:
        """Return each sink's index, None where it is absent, where it has none, or each event names one."""
        names = [self._road.index(number, self.at) for number in range(len(self._road.pipeline.sinks))]
        return [self._cluster(number).index(name) if name else None for number, name in enumerate(names)]

    def done_for(self, indexes: Sequence[Index | None]) -> str:
        """Name what is done to units with these indexes, one for each sink."""
        return self._road.done_for(["" if index is None else index.uuid for index in indexes])

    def _written(self, unit: Unit, sources: Sequence[Source], *, force: bool) -> list[IngestReport]:
        reports = []
        for number, (_, sink) in enumerate(self._road.pipeline.sinks):
            if isinstance(sink, OpenSearchSink):
                report = self._indexed(number, unit, sources, force=force)
            else:
                report = self._stored(number, sink, unit, sources, force=force)
            save(self._objects, self._work.ingest_report(self._run_key, f"{unit.id}-{number}"), report)
            reports.append(report)
        return reports

    def _indexed(self, number: int, unit: Unit, sources: Sequence[Source], *, force: bool) -> IngestReport:
        maker = self._road.maker(
            number, self._objects, at=self.at, row_error=provider_error, with_metadata=unit.with_metadata
        )
        place = self._work.written(number, unit.id)
        report = Ingest(
            self._objects,
            self._cluster(number),
            request=maker.request,
            locations=Locations.of(self._work.root, place),
            maker=maker,
        ).run(sources, force=force)
        dlq = self._road.dlq(number)
        if dlq is not None and report.dead_letters:
            write_dlq(
                self._objects,
                self._target(number, "dlq"),
                dlq,
                queue=report.dead_letters,
                pipeline=self._work.pipeline,
                index=report.index,
                at=self.at,
            )
        return report if report.index else msgspec.structs.replace(report, index=self._road.index_pattern(number))

    def _stored(self, number: int, sink: S3Sink, unit: Unit, sources: Sequence[Source], *, force: bool) -> IngestReport:
        def entries() -> EventDocuments:
            return self._road.events(
                number,
                sources,
                self._objects,
                at=self.at,
                row_error=provider_error,
                with_metadata=unit.with_metadata,
            )

        return S3Ingest(
            self._objects,
            self._target(number, "aws"),
            sink,
            place=self._work.written(number, unit.id),
            decisive=self._road.sink_decisive(number),
        ).run(sources, entries, force=force)

    def _sources(self, unit: Unit, answered: Answered | None) -> list[Source] | None:
        """Return what is read, None for outputs that this pipeline does not look at."""
        if answered is None:
            return self._with_records(unit)
        outputs = self._outputs(unit, answered)
        areas = self._road.areas(self.at)
        taken = [item for item in outputs if (area := area_of(areas, item)) and area.selection != "metadata_only"]
        if not taken:
            return None
        output = Source("output", tuple(taken))
        return [Source("inputs", unit.objects), output] if self._road.joins else [output]

    def _with_records(self, unit: Unit) -> list[Source]:
        """Return a unit's objects, behind the records they are joined with.

        Raises:
            ConfigError: a record's object is not where its name says.
        """
        rows = Source("objects", unit.objects)
        names = dict.fromkeys(uri for item in unit.objects if (uri := self._road.records_of(item)))
        if not names:
            return [rows]
        records = [item for uri in names for item in find(self._objects, uri)]
        return [Source("inputs", tuple(records)), rows]

    def _outputs(self, unit: Unit, answered: Answered) -> list[ObjectInfo]:
        """Return the outputs of a job.

        Raises:
            OutputUnusable: there are fewer than inputs; the job's record says so from then on.
        """
        found = [item for uri in answered.outputs for item in self._listed(uri) if item.uri.endswith(OUT)]
        # What was read once may have been removed since: the job is not to blame.
        if len(found) >= len(unit.objects) or (not found and self._scanned.done(unit)):
            return found
        where = ", ".join(answered.outputs)
        error = answered.unusable(f"{where}: {len(found)} outputs of {len(unit.objects)} inputs; {CLEAR_TO_PAY}")
        spoil(self._objects, error, now=time.time())
        raise OutputUnusable(str(error)) from error

    def _listed(self, uri: str) -> list[ObjectInfo]:
        if uri.endswith("/"):
            return list(self._objects.list(uri))
        found = self._objects.head(uri)
        return [] if found is None else [found]
