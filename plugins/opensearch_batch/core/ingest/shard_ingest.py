"""Ingests one shard: joins the output of its jobs with its records and writes the documents to the index.

Every record becomes a document or a dead letter, even if it has no prediction. A dead letter names the line of the
user's source from which the record was read.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, OutputUnusable
from opensearch_batch.core.formats.reading import read_rows
from opensearch_batch.core.ingest.documents import DocumentFactory, Reading, row_position
from opensearch_batch.core.ingest.engine import Ingest, Locations
from opensearch_batch.core.ingest.mapped_documents import MappedDocumentFactory
from opensearch_batch.core.ingest.prediction_map import RECORDS
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.opensearch import IndexSink
from opensearch_batch.core.jobs.contract import RowMatching, ServiceAdapter
from opensearch_batch.core.jobs.job_records import CLEAR_TO_PAY, invalidate_output
from opensearch_batch.core.jobs.output_rows import (
    WRAPPED_ERRORS,
    JobOutput,
    LatestRows,
    OutputRows,
    UsedJobs,
    record_outputs_read,
)
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, find_objects
from opensearch_batch.core.transform.field_map import ANY_FIELD, OnMissing
from opensearch_batch.core.types.counts import IngestCounts, IngestReport
from opensearch_batch.core.types.manifest import Manifest, PreparedShard, Shard
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Blank, Rejected, Row, Source
from opensearch_batch.core.types.vector_field import VectorField


class ShardIngest(msgspec.Struct, frozen=True):
    """Ingests the output of the jobs of one shard.

    Args:
        objects: the store of outputs and work prefix.
        cluster: the cluster of the index.
        layout: the locations of this package's files.
        manifest: the run's manifest, which has the origin of each record.
        adapter: the adapter of the AI service.
        row_matching: how output rows are matched with their records.
        request: what to write, as returned by `with_source_paths`. By default, a row without a mapped vector becomes a
            dead letter (see `on_missing`), and so does a record without output (see `on_unmatched`). With processors,
            only a row that is an error of the service does.
        dead_letters: the prefix of the dead letters; below the work prefix if None.
        still_claimed: whether no newer run has claimed the records (see `Ingest`).
    """

    objects: Objects
    cluster: Cluster
    layout: Layout
    manifest: Manifest
    adapter: ServiceAdapter
    row_matching: RowMatching
    request: IngestRequest
    dead_letters: str | None = None
    still_claimed: Callable[[], bool] = lambda: True

    def run(self, shard: Shard, job_outputs: Sequence[JobOutput], *, force: bool = False) -> IngestReport:
        """Index the rows of all jobs, write the report, and return it.

        Raises:
            ConfigError: the index does not exist, or no prediction has the dimension of its vector field.
            FatalError: an output is missing, or has fewer rows than records although rows contain their records.
            RetriableError: a server did not respond.
        """
        request = self._checked_request()
        prepared = PreparedShard(shard, self.manifest.origin(shard))
        # Outputs that are stored at the service are not below the work prefix.
        job_prefix = f"{self.layout.job(shard.job)}/"
        if not all(uri.startswith(job_prefix) for uri in job_outputs[0].uris if uri.startswith(self.layout.root)):
            raise FatalError(f"shard {shard.id}: the output belongs to another job; clear batch_predict")
        rows = ShardRows(self.objects, self.adapter, self.row_matching, prepared, job_outputs)
        try:
            report = self._ingest(prepared, rows, request).run(rows.sources(), force=force)
        except OutputUnusable as error:
            invalidate_output(self.objects, error, now=time.time())
            remedy = CLEAR_TO_PAY if error.job == job_outputs[0].job else "clear repair to submit a new one"
            raise OutputUnusable(f"{error}; {remedy}") from error
        run_key = self.manifest.run_key
        used = rows.used()
        save(self.objects, self.layout.used_jobs(run_key, shard.id), used)
        record_outputs_read(self.objects, used)
        save(self.objects, self.layout.ingest_report(run_key, shard.id), report)
        return report

    def _ingest(self, prepared: PreparedShard, rows: ShardRows, request: IngestRequest) -> Ingest:
        shard = prepared.shard

        def check(counts: IngestCounts) -> None:
            rows_read = counts.sources[RECORDS].read
            if rows_read != shard.records:
                raise rows.job_outputs[0].unusable(f"shard {shard.id}: {rows_read} rows for {shard.records} records")

        range_key = self.layout.range_key(request.index, prepared.source_ranges)
        # Pipelines and shards may share a prefix for dead letters; each ingest clears only its own folder.
        folder = f"{self.layout.pipeline}/{range_key}/"
        return Ingest(
            self.objects,
            IndexSink(self.objects, self.cluster, request, infers_vectors=request.processors is not None),
            document_factory(request, rows.reading),
            locations=Locations.of(
                self.layout.root,
                self.layout.ingested(range_key),
                self.dead_letters and f"{self.dead_letters.rstrip('/')}/{folder}",
            ),
            check=check,
            identity=[msgspec.json.encode([prepared.source_ranges, list(rows.job_outputs)]).decode()],
            run_version=self.manifest.run_version,
            records=shard.records,
            still_claimed=self.still_claimed,
        )

    def _checked_request(self) -> IngestRequest:
        """Check the index again; return the request with the policy for rows without a vector.

        Raises:
            ConfigError: the index was deleted, or lacks a vector field that it had when prepare checked it.
        """
        name = self.request.index
        index = self.cluster.index(name)
        if index is None:
            raise ConfigError(f"index {name} was deleted; clear prepare to create it again")
        for vector in self.manifest.vectors:
            if vector not in index.vectors:
                raise ConfigError(
                    f"index {name}: field {vector.name} is no longer a vector of {vector.dimension} values; "
                    "delete the index and clear prepare to create it again"
                )
        return with_strict_vectors(index.vectors, self.request)


def document_factory(request: IngestRequest, reading: Reading) -> DocumentFactory:
    """Return the factory that makes documents with the processors or the field map of a request."""
    if request.processors is None:
        return MappedDocumentFactory(request, reading)
    from opensearch_batch.core.ingest.row_documents import row_document_factory

    return row_document_factory(request, reading)


def with_strict_vectors(vectors: Sequence[VectorField], request: IngestRequest) -> IngestRequest:
    """Return a request that turns a row without a vector into a dead letter, unless `on_missing` has another policy.

    A request with processors is returned unchanged.
    """
    if ANY_FIELD in request.on_missing or request.processors is not None:
        return request
    strict: dict[str, OnMissing] = {vector.name: "dead_letter" for vector in vectors}
    return msgspec.structs.replace(request, on_missing={**strict, **request.on_missing})


class ShardRows:
    """The rows of one shard: the output of its jobs, and its records if output rows do not contain them.

    Args:
        objects: the store of outputs and records.
        adapter: the adapter of the AI service.
        row_matching: how output rows are matched with their records.
        prepared: the shard, with the origin of its records.
        job_outputs: the outputs of the shard's jobs, in the order of the jobs.
    """

    def __init__(
        self,
        objects: Objects,
        adapter: ServiceAdapter,
        row_matching: RowMatching,
        prepared: PreparedShard,
        job_outputs: Sequence[JobOutput],
    ) -> None:
        self.job_outputs = job_outputs
        self._objects = objects
        self._adapter = adapter
        self._prepared = prepared
        self._contains_record = row_matching == "beside_record"
        self._rows = OutputRows(objects, adapter, row_matching)
        self._latest_rows = LatestRows(self._rows, job_outputs, contains_record=self._contains_record)
        # The position of each range's first record in the shard.
        self._starts = list(accumulate((each.records for each in prepared.source_ranges), initial=0))

    def sources(self) -> list[Source]:
        """Return the sources of the ingest: the output, or records and output."""
        output = self._rows.source(self.job_outputs)
        if self._contains_record:
            return [output]
        return [Source("records", tuple(find_objects(self._objects, self._prepared.shard.source))), output]

    def used(self) -> UsedJobs:
        """Return the jobs and the objects of their outputs."""
        return self._rows.used(self.job_outputs)

    def read(self, objects: Objects, number: int, source: Source) -> Iterator[Row | Blank | Rejected]:
        """Yield the rows of one source."""
        if number == RECORDS and not self._contains_record:
            return read_rows(objects, number, source)
        return self._latest_rows.read(number)

    @property
    def reading(self) -> Reading:
        """How an ingest reads these rows."""
        if self._contains_record:
            errors = RowErrors(lambda row: self._adapter.row(row).error, self._adapter.error_members)
        else:
            errors = WRAPPED_ERRORS
        return Reading(self._objects, self.read, errors, self.origin_of)

    def origin_of(self, row: Row) -> tuple[str, int]:
        """Return the line of the user's source from which a row's record was read, or else the row's position."""
        position = self._latest_rows.position(row)
        if position is None or not 0 <= position < self._starts[-1]:
            return row_position(row)
        number = bisect_right(self._starts, position) - 1
        source_range = self._prepared.source_ranges[number]
        return source_range.source, source_range.first_line + position - self._starts[number]
