"""Ingest of one shard: what its jobs answered, joined with its records, into the index that prepare checked.

Every record becomes a document or a dead letter, also one that no job answered. A dead letter names the user's own
document, which prepare cut the record from.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, OutputUnusable
from opensearch_batch.core.formats.lines import read_rows
from opensearch_batch.core.ingest.documents import DocumentFactory
from opensearch_batch.core.ingest.engine import Ingest, IngestReport, Locations
from opensearch_batch.core.ingest.prediction_map import RECORDS
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.jobs.contract import Answers, ServiceAdapter
from opensearch_batch.core.jobs.job_records import CLEAR_TO_PAY, invalidate_output
from opensearch_batch.core.jobs.output_rows import JOINED_ERRORS, Answered, LastAnswers, OutputRows, UsedJobs, note_read
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, find
from opensearch_batch.core.transform.field_map import ANY_FIELD, OnMissing
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.manifest import Manifest, Shard, SourceRange
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Blank, Rejected, Row, Source
from opensearch_batch.core.types.vector_field import VectorField


class ShardIngest:
    """Ingests what the jobs of one shard answered.

    Args:
        objects: where outputs and work prefix lie.
        cluster: where the index is.
        layout: names the locations.
        manifest: the run's account, which knows where each record came from.
        adapter: reads its service's rows.
        answers: how its rows find their records.
        request: what to put where, its paths those of `over_sources`; a mapped vector that a row lacks is a dead letter
            unless `on_missing` says else, and a record without an answer is one unless `on_unmatched` says else. Of
            processors, only an error in place of a prediction is one.
        dead_letters: a prefix for them; below `work_prefix` if None.
    """

    def __init__(
        self,
        objects: Objects,
        cluster: Cluster,
        *,
        layout: Layout,
        manifest: Manifest,
        adapter: ServiceAdapter,
        answers: Answers,
        request: IngestRequest,
        dead_letters: str | None = None,
    ) -> None:
        self._objects = objects
        self._cluster = cluster
        self._dead_letters = dead_letters
        self._layout = layout
        self._manifest = manifest
        self._adapter = adapter
        self._answers = answers
        self._request = request

    def run(self, shard: Shard, answered: Sequence[Answered], *, force: bool = False) -> IngestReport:
        """Index the rows of all answers, write the account of it, and return it.

        Raises:
            ConfigError: the index is missing, or its vectors have another dimension than all predictions.
            FatalError: an output is missing, or has not a row for every record where rows hold their records.
            RetriableError: a server stayed away.
        """
        self._open_index()
        source_ranges = self._manifest.origin(shard)
        # Outputs at the service itself are named by the job's record alone.
        own = f"{self._layout.job(shard.job)}/"
        if not all(uri.startswith(own) for uri in answered[0].outputs if uri.startswith(self._layout.root)):
            raise FatalError(f"shard {shard.id}: the output belongs to another job; clear batch_predict")
        rows = ShardRows(
            self._objects, self._adapter, self._answers, shard=shard, source_ranges=source_ranges, answered=answered
        )
        try:
            report = self._ingest(shard, source_ranges, rows).run(rows.sources(), force=force)
        except OutputUnusable as error:
            invalidate_output(self._objects, error, now=time.time())
            remedy = CLEAR_TO_PAY if error.job == answered[0].job else "clear repair to ask once more"
            raise OutputUnusable(f"{error}; {remedy}") from error
        run_key = self._manifest.run_key
        used = rows.used()
        save(self._objects, self._layout.used(run_key, shard.id), used)
        note_read(self._objects, used)
        save(self._objects, self._layout.ingest_report(run_key, shard.id), report)
        return report

    def _ingest(self, shard: Shard, source_ranges: Sequence[SourceRange], rows: ShardRows) -> Ingest:
        def check(counts: IngestCounts) -> None:
            found = counts.sources[RECORDS].read
            if found != shard.records:
                raise rows.answered[0].unusable(f"shard {shard.id}: {found} rows for {shard.records} records")

        ingested = self._layout.ingested(self._request.index, source_ranges)
        # Pipelines and shards may share a prefix for dead letters; each clears only its own.
        own = f"{self._layout.pipeline}/{ingested.rpartition('/')[2]}/"
        return Ingest(
            self._objects,
            self._cluster,
            request=self._request,
            locations=Locations.of(
                self._layout.root, ingested, self._dead_letters and f"{self._dead_letters.rstrip('/')}/{own}"
            ),
            read=rows.read,
            row_errors=rows.errors,
            place=rows.place,
            maker=self._maker(rows),
            check=check,
            identity=[msgspec.json.encode([source_ranges, list(rows.answered)]).decode()],
            run_version=self._manifest.run_version,
            records=shard.records,
        )

    def _maker(self, rows: ShardRows) -> DocumentFactory | None:
        """Return what makes documents by processors, None for a field map."""
        if self._request.processors is None:
            return None
        from opensearch_batch.core.ingest.row_documents import row_document_factory

        return row_document_factory(
            self._request, objects=self._objects, read=rows.read, row_errors=rows.errors, place=rows.place
        )

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
        self._request = strict_about(index.vectors, self._request)


def strict_about(vectors: Sequence[VectorField], request: IngestRequest) -> IngestRequest:
    """Return a request for which a missing vector is a dead letter, unless it says else, or has processors."""
    if ANY_FIELD in request.on_missing or request.processors is not None:
        return request
    strict: dict[str, OnMissing] = {vector.name: "dead_letter" for vector in vectors}
    return msgspec.structs.replace(request, on_missing={**strict, **request.on_missing})


class ShardRows:
    """The rows of one shard: what its jobs answered, and its records where those do not hold them.

    Args:
        objects: where they lie.
        adapter: reads its service's rows.
        answers: how its rows find their records.
        shard: the shard.
        source ranges: where its records came from.
        answered: what its jobs answered, in their order.
    """

    def __init__(
        self,
        objects: Objects,
        adapter: ServiceAdapter,
        answers: Answers,
        *,
        shard: Shard,
        source_ranges: Sequence[SourceRange],
        answered: Sequence[Answered],
    ) -> None:
        self.answered = answered
        self._objects = objects
        self._adapter = adapter
        self._shard = shard
        self._holds_record = answers == "beside_record"
        self._rows = OutputRows(objects, adapter, answers)
        self._last = LastAnswers(self._rows, answered, holds_record=self._holds_record)
        self._places = Places(source_ranges)

    def sources(self) -> list[Source]:
        """Return what an ingest reads: the output, or records and output."""
        output = self._rows.source(self.answered)
        if self._holds_record:
            return [output]
        return [Source("records", tuple(find(self._objects, self._shard.source))), output]

    def used(self) -> UsedJobs:
        """Return the jobs and the objects of their outputs."""
        return self._rows.used(self.answered)

    def read(self, objects: Objects, number: int, source: Source) -> Iterator[Row | Blank | Rejected]:
        """Yield the rows of one source."""
        if number == RECORDS and not self._holds_record:
            return read_rows(objects, number, source)
        return self._last.read(number)

    def place(self, row: Row) -> tuple[str, int]:
        """Return which of the user's documents a row is about; the row's own place where nobody knows."""
        position = self._last.position(row)
        return (position is not None and self._places.of(position)) or (row.uri, row.line)

    @property
    def errors(self) -> RowErrors:
        """Finds the service's errors in these rows."""
        if self._holds_record:
            return RowErrors(lambda row: self._adapter.row(row).error, self._adapter.error_members)
        return JOINED_ERRORS


class Places:
    """Knows which of the user's documents the record at a position of the shard is."""

    def __init__(self, source_ranges: Sequence[SourceRange]) -> None:
        self._segments = source_ranges
        self._starts = list(accumulate((source_range.records for source_range in source_ranges), initial=0))

    def of(self, position: int) -> tuple[str, int] | None:
        """Return source and line, None when the shard has no such record."""
        if not 0 <= position < self._starts[-1]:
            return None
        at = bisect_right(self._starts, position) - 1
        source_range = self._segments[at]
        return source_range.source, source_range.first_line + position - self._starts[at]
