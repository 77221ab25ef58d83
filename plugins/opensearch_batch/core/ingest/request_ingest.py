"""Runs the ingest of a `_batch_ingestion` request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from opensearch_batch.core.formats.reading import read_any_rows
from opensearch_batch.core.ingest.batch_ingestion import BatchIngestion
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.engine import Ingest, Locations
from opensearch_batch.core.ingest.join import MEMORY_BYTES
from opensearch_batch.core.ingest.mapped_documents import MappedDocumentFactory
from opensearch_batch.core.ingest.sinks.opensearch import IndexSink
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.objects import Objects, find_objects
from opensearch_batch.core.types.counts import IngestCounts, IngestReport
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.row_errors import NO_ERRORS, RowErrors
from opensearch_batch.core.types.rows import Source


def run_batch_ingestion(
    batch: BatchIngestion,
    objects: Objects,
    cluster: Cluster,
    *,
    work_prefix: str,
    row_errors: RowErrors = NO_ERRORS,
    force: bool = False,
    memory_bytes: int = MEMORY_BYTES,
    spill_folder: Path | None = None,
    on_progress: Callable[[IngestCounts, int], None] = lambda counts, size: None,  # noqa: ARG005 - no progress is shown
) -> IngestReport:
    """Run a `_batch_ingestion` request; with `force`, write everything again.

    `work_prefix` is the prefix of progress, and of dead letters unless `batch.dead_letters` is set; nothing else should
    be stored there. Rows that wait for rows of other sources need `memory_bytes`; the others are spilled to a folder.
    `on_progress` is called with the counts so far and the bytes read.

    Raises:
        ConfigError: the request cannot be executed, for example because a source does not exist.
        RetriableError: a server did not respond; the same call continues where this one stopped.
        FatalError: a source is damaged, or changed during the ingest.
    """
    sources = find_sources(batch, objects)
    prefix = ingest_prefix(batch, work_prefix)
    ingest = Ingest(
        objects,
        IndexSink(objects, cluster, batch.ingest),
        MappedDocumentFactory(
            batch.ingest,
            Reading(objects, read_any_rows, row_errors, memory_bytes=memory_bytes, folder=spill_folder),
        ),
        # Requests may share a location for dead letters; each gets its own folder there, because an ingest deletes old
        # dead letters.
        locations=Locations.of(
            work_prefix,
            prefix,
            batch.dead_letters and f"{batch.dead_letters.rstrip('/')}/{prefix.rpartition('/')[2]}/",
        ),
        on_progress=on_progress,
    )
    return ingest.run(sources, force=force)


def ingest_prefix(batch: BatchIngestion, work_prefix: str) -> str:
    """Return the prefix of a request's progress below a work prefix; it depends on the index and the sources only."""
    return f"{work_prefix.rstrip('/')}/{digest(batch.ingest.index, *batch.sources)}"


def find_sources(batch: BatchIngestion, objects: Objects) -> list[Source]:
    """Return the sources of a request with their objects; raise ConfigError if a source is missing."""
    scheme = "openai://" if batch.type == "openai" else ""
    return [Source(source, tuple(find_objects(objects, f"{scheme}{source}"))) for source in batch.sources]
