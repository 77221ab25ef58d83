"""Ingest turns a job's output into documents: every row is indexed, or it is a dead letter with its reason.

A source that is in the index already (same output bytes, same field map, same index) is skipped, so the same request
again writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.bulk import MAX_BODY_BYTES, BulkWriter, Item
from opensearch_batch.core.cluster import Cluster, Index
from opensearch_batch.core.dead_letters import DeadLetters, dead_letter
from opensearch_batch.core.errors import ConfigError, FatalError, OutputUnusable, RecordRejected
from opensearch_batch.core.field_map import FieldMap, VectorRejected
from opensearch_batch.core.job import CLEAR_TO_PAY, End, Ledger
from opensearch_batch.core.manifest import (
    IngestCounts,
    IngestReport,
    Manifest,
    Segment,
    Shard,
    WorkPrefix,
    digest,
    load_report,
    save,
)
from opensearch_batch.core.objects import Line, Objects, lines
from opensearch_batch.services.base import Service

MAX_ROW_BYTES = 64 << 20


class IngestRequest(msgspec.Struct, frozen=True):
    """What to put where: the same words as ML Commons' batch ingestion."""

    index: str
    field_map: dict[str, Any]
    ingest_fields: list[str] = []
    max_body_bytes: int = MAX_BODY_BYTES


class Row(msgspec.Struct, frozen=True):
    """One output row and the place of its record in the user's own document, as far as that is known."""

    line: Line
    output: str
    source: str
    source_line: int


class Ingest:
    """Ingests the output of one shard's job.

    Args:
        objects: where outputs and work prefix lie.
        cluster: where the index is.
        work: names the locations.
        manifest: the run's account, which knows where each record came from.
        service: reads its own error rows.
        request: what to put where.
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
        index = self._open_index()
        origin = self._manifest.origin(shard)
        if not all(output.startswith(f"{self._work.job(shard.job)}/") for output in outputs):
            raise FatalError(f"shard {shard.id}: the output belongs to another job; clear batch_predict")
        try:
            return self._run(shard, outputs, index, origin, force=force)
        except OutputUnusable as error:
            self._spoil(shard, outputs, str(error))
            raise OutputUnusable(f"{error}; {CLEAR_TO_PAY}") from error

    def _run(
        self, shard: Shard, outputs: Sequence[str], index: Index, origin: list[Segment], *, force: bool
    ) -> IngestReport:
        fingerprint = self._fingerprint(index, outputs, origin)
        proof = self._work.ingested(index.name, shard, origin)
        before = None if force else load_report(self._objects, proof)
        if before is not None and before.fingerprint == fingerprint:
            report = self._unchanged(before, shard)
        else:
            report, settled = self._ingest(shard, outputs, index, fingerprint, origin)
            if settled:
                save(self._objects, proof, report)
            else:
                self._objects.delete(proof)
        save(self._objects, self._work.ingest_report(self._manifest.run_key, shard.id), report)
        return report

    def _open_index(self) -> Index:
        """Return the index, if it is the one that prepare checked or as good."""
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
        return index

    def _spoil(self, shard: Shard, outputs: Sequence[str], reason: str) -> None:
        """Record that a completed job is of no use, so that a person's clear of batch_predict submits another."""
        ledger = Ledger(self._objects, self._work.job(shard.job))
        found = ledger.load()
        if found is not None and all(output.startswith(found[0].output) for output in outputs):
            ledger.end(found[0].generation, End("UNUSABLE", time.time(), reason))

    def _fingerprint(self, index: Index, outputs: Sequence[str], origin: list[Segment]) -> str:
        """Name this work by everything that decides its result."""
        request = [self._request.index, self._request.field_map, self._request.ingest_fields, origin]
        parts = [index.uuid, msgspec.json.encode(request, order="deterministic").decode()]
        for output in outputs:
            found = self._objects.head(output)
            if found is None:
                raise OutputUnusable(f"{output}: the job's output is gone")
            parts += [output, found.etag]
        return digest(*parts)

    def _unchanged(self, before: IngestReport, shard: Shard) -> IngestReport:
        """Return the account of work that was done before: all of it is there, nothing was written now."""
        then, kept = before.counts, None
        if before.dead_letters is not None and (letters := self._objects.read(before.dead_letters)):
            kept = self._work.dead_letters(self._manifest.run_key, "ingest", shard.id)
            self._objects.write(kept, letters.content)
        counts = msgspec.structs.replace(then, indexed=0, unchanged=then.indexed + then.unchanged)
        return msgspec.structs.replace(before, shard=shard.id, counts=counts, dead_letters=kept)

    def _ingest(
        self, shard: Shard, outputs: Sequence[str], index: Index, fingerprint: str, origin: list[Segment]
    ) -> tuple[IngestReport, bool]:
        """Index the rows; return the account, and whether a repetition would give the same."""
        where = self._work.dead_letters(self._manifest.run_key, "ingest", shard.id)
        with DeadLetters(self._objects, where) as dead:
            tally = _Tally(self._map(index), dead, self._service)
            writer = BulkWriter(self._cluster, index.name, max_body_bytes=self._request.max_body_bytes)
            settled = True
            for written in writer.write(tally.items(self._rows(outputs, origin, tally))):
                tally.indexed += written.indexed
                for refused in written.refused:
                    # What the index refuses today it may take tomorrow, with another mapping.
                    settled = False
                    tally.reject(refused.item.origin, f"refused by the index ({refused.status}): {refused.reason}")
            dead.write()
            tally.check_vectors(index)
            counts = tally.counts()
            counts.reconcile(", ".join(outputs), records=shard.records)
            self._cluster.refresh(index.name)
            self._check_same(index)
            return IngestReport(shard.id, index.name, counts, fingerprint, dead.location), settled

    def _check_same(self, index: Index) -> None:
        """Raise ConfigError when another index came into its place; a bulk request would even create one."""
        now = self._cluster.index(index.name)
        if now is None or now.uuid != index.uuid:
            raise ConfigError(
                f"index {index.name} was deleted while it was being written; delete what came in its place, "
                "clear prepare to create it again, and clear ingest"
            )

    def _map(self, index: Index) -> FieldMap:
        return FieldMap(self._request.field_map, self._request.ingest_fields, vectors=index.vectors)

    def _rows(self, outputs: Sequence[str], segments: Sequence[Segment], tally: _Tally) -> Iterator[Row]:
        """Yield the rows, each with the place of the record that stands at the same position of the shard."""
        origins = _places(segments)
        for output in outputs:
            with self._objects.open(output) as stream:
                for line in lines(stream, max_line_bytes=MAX_ROW_BYTES):
                    if not line.content.strip():
                        tally.blank += 1
                        continue
                    tally.read += 1
                    source, source_line = next(origins, (output, line.number))
                    yield Row(line, output, source, source_line)


class _Tally:
    """Maps rows and counts what becomes of them."""

    def __init__(self, field_map: FieldMap, dead: DeadLetters, service: Service) -> None:
        self._field_map = field_map
        self._dead = dead
        self._service = service
        self.read = self.indexed = self.blank = self.nulls = self.vectors_rejected = 0
        self._vector_reason = ""

    def items(self, rows: Iterator[Row]) -> Iterator[Item]:
        for row in rows:
            try:
                yield self._item(row)
            except VectorRejected as error:
                self.vectors_rejected += 1
                self._vector_reason = self._vector_reason or str(error)
                self.reject(row, str(error))
            except RecordRejected as error:
                self.reject(row, str(error))

    def _item(self, row: Row) -> Item:
        if row.line.cut:
            raise RecordRejected(f"the row is longer than {MAX_ROW_BYTES} bytes")
        if error := self._service.row_error(row.line.content):
            raise RecordRejected(error)
        document = self._field_map.document(row.line.content)
        self.nulls += document.nulls
        return Item(document.id or digest(row.source, str(row.source_line)), document.source, row)

    def reject(self, row: Row, reason: str) -> None:
        self._dead.add(
            dead_letter(
                row.line.content,
                stage="ingest",
                reason=reason,
                source=row.source,
                line=row.source_line,
                output=row.output,
                output_line=row.line.number,
            )
        )

    def check_vectors(self, index: Index) -> None:
        """Raise ConfigError when no vector at all fits: that is the index's fault, not the records'."""
        if self.read and self.vectors_rejected == self.read:
            raise ConfigError(
                f"index {index.name}: none of {self.read} rows fits its mapping ({self._vector_reason}); nothing was "
                "written. Create the index again with the model's dimension, or mend field_map, and clear ingest"
            )

    def counts(self) -> IngestCounts:
        return IngestCounts(
            read=self.read,
            indexed=self.indexed,
            dead_letters=self._dead.count,
            blank=self.blank,
            nulls=self.nulls,
        )


def _places(segments: Sequence[Segment]) -> Iterator[tuple[str, int]]:
    for segment in segments:
        for offset in range(segment.records):
            yield segment.source, segment.first_line + offset
