"""Ingest of one shard: a job's output, whose every record is a row, into the index that prepare checked.

A dead letter names the user's own document, which prepare cut the record from.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import msgspec

from opensearch_batch.core.cluster import Cluster
from opensearch_batch.core.errors import ConfigError, FatalError, OutputUnusable
from opensearch_batch.core.field_map import ANY_FIELD, OnMissing
from opensearch_batch.core.ingest import Ingest, IngestReport, Locations
from opensearch_batch.core.job import CLEAR_TO_PAY, End, Ledger
from opensearch_batch.core.join import Row
from opensearch_batch.core.manifest import Manifest, Segment, Shard, WorkPrefix, save
from opensearch_batch.core.objects import ObjectInfo, Objects
from opensearch_batch.core.progress import IngestCounts
from opensearch_batch.core.request import IngestRequest
from opensearch_batch.core.rows import Blank, Rejected, Source, read_rows
from opensearch_batch.services.base import Service


class ShardIngest:
    """Ingests the output of one shard's job.

    Args:
        objects: where outputs and work prefix lie.
        cluster: where the index is.
        work: names the locations.
        manifest: the run's account, which knows where each record came from.
        service: reads its own error rows.
        request: what to put where; a mapped vector that a row lacks is a dead letter unless `on_missing` says else.
    """

    def __init__(
        self,
        objects: Objects,
        cluster: Cluster,
        *,
        work: WorkPrefix,
        manifest: Manifest,
        service: Service,
        request: IngestRequest,
    ) -> None:
        self._objects = objects
        self._cluster = cluster
        self._work = work
        self._manifest = manifest
        self._service = service
        self._request = request

    def run(self, shard: Shard, outputs: Sequence[str], *, force: bool = False) -> IngestReport:
        """Index the rows of `outputs`, write the account of it, and return it.

        Raises:
            ConfigError: the index is missing, or its vectors have another dimension than all predictions.
            FatalError: an output is missing, or has not a row for every record.
            RetriableError: a server stayed away.
        """
        self._open_index()
        segments = self._manifest.origin(shard)
        if not all(output.startswith(f"{self._work.job(shard.job)}/") for output in outputs):
            raise FatalError(f"shard {shard.id}: the output belongs to another job; clear batch_predict")
        try:
            report = self._ingest(shard, segments).run([self._source(outputs)], force=force)
        except OutputUnusable as error:
            self._spoil(shard, outputs, str(error))
            raise OutputUnusable(f"{error}; {CLEAR_TO_PAY}") from error
        save(self._objects, self._work.ingest_report(self._manifest.run_key, shard.id), report)
        return report

    def _ingest(self, shard: Shard, segments: Sequence[Segment]) -> Ingest:
        places = Places(segments)

        def check(counts: IngestCounts) -> None:
            if counts.read != shard.records:
                raise OutputUnusable(
                    f"shard {shard.id}: the job's output has {counts.read} rows for {shard.records} records"
                )

        return Ingest(
            self._objects,
            self._cluster,
            request=self._request,
            locations=Locations.of(self._work.root, self._work.ingested(self._request.index, shard, segments)),
            read=places.read,
            row_error=self._service.row_error,
            place=places.of,
            check=check,
            identity=[msgspec.json.encode(segments).decode()],
        )

    def _source(self, outputs: Sequence[str]) -> Source:
        found = list[ObjectInfo]()
        for output in outputs:
            info = self._objects.head(output)
            if info is None:
                raise OutputUnusable(f"{output}: the job's output is gone")
            found.append(info)
        return Source("output", tuple(found))

    def _open_index(self) -> None:
        """Make a row without its prediction a dead letter.

        Raises:
            ConfigError: the index is not the one that prepare checked, or as good.
        """
        name = self._request.index
        index = self._cluster.index(name)
        if index is None:
            raise ConfigError(f"index {name} is gone; clear prepare to create it again")
        for vector in self._manifest.vectors:
            if vector not in index.vectors:
                raise ConfigError(
                    f"index {name}: field {vector.name} is no vector of {vector.dimension} values any more; "
                    "delete the index and clear prepare to create it again"
                )
        if ANY_FIELD not in self._request.on_missing:
            strict: dict[str, OnMissing] = {vector.name: "dead_letter" for vector in index.vectors}
            policies = {**strict, **self._request.on_missing}
            self._request = msgspec.structs.replace(self._request, on_missing=policies)

    def _spoil(self, shard: Shard, outputs: Sequence[str], reason: str) -> None:
        """Record that a completed job is of no use, so that a person's clear of batch_predict submits another."""
        ledger = Ledger(self._objects, self._work.job(shard.job))
        found = ledger.load()
        if found is not None and all(output.startswith(found[0].output) for output in outputs):
            ledger.end(found[0].generation, End("UNUSABLE", time.time(), reason))


class Places:
    """Knows which of the user's documents a row of the output came from: the one at the same position of the shard."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._rows = 0
        self._rows_before: dict[str, int] = {}
        self._blank_lines: dict[str, list[int]] = {}

    def read(self, objects: Objects, number: int, source: Source) -> Iterator[Row | Blank | Rejected]:
        """Yield the rows and take note of where they stand."""
        for found in source.objects:
            self._rows_before[found.uri] = self._rows
            blank = self._blank_lines[found.uri] = list[int]()
            for line, entry in enumerate(read_rows(objects, number, Source(source.name, (found,))), start=1):
                if isinstance(entry, Blank):
                    blank.append(line)
                else:
                    self._rows += 1
                yield entry

    def of(self, row: Row) -> tuple[str, int]:
        """Return the source and the line of the user's document; those of the row when it has too many."""
        at = self._rows_before[row.uri] + row.line - 1 - bisect_left(self._blank_lines[row.uri], row.line)
        for segment in self._segments:
            if at < segment.records:
                return segment.source, segment.first_line + at
            at -= segment.records
        return row.uri, row.line
