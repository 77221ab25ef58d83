"""How a run compares its source with the ledger, and what identifies the work of its pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.prediction_map import with_source_paths
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.staged_ingest import document_factory
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.jobs.predict_action import RealtimeLimit
from opensearch_batch.core.ledger.resolve import Mode
from opensearch_batch.core.sharding.document_ids import DeletedWhen
from opensearch_batch.core.sharding.listing import Listing
from opensearch_batch.core.sharding.open_jobs import OpenJobs
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import MAX_DEAD_LETTERS, MAX_REMOVED
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.manifest import Manifest
from opensearch_batch.core.types.shard_limits import ShardLimits

OnRemoved = Literal["keep", "delete"]
SCOPE_DIGITS = 16


class PrepareOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is compared with the ledger and cut into shards.

    Args:
        mode: what absence means: in a snapshot, a record that is absent was removed; in append mode, nothing.
        on_removed: whether documents of removed records are deleted.
        max_removed: the share of the documents that may be deleted because their records were removed.
        deleted: which records are tombstones.
        max_dead_letters: the share of the records that may be dead letters.
        source_format: the format of the objects, if the pipeline names it.
        passthrough: the objects are submitted unchanged.
        limit: the maximum number of records; all if None.
        max_records, max_bytes: the maximum size of a shard.
        realtime: how few records are predicted in real time.
        force: read all objects, ignore the prediction store, and pay for all predictions.
        rebuild: read all objects, and write all documents from the prediction store, without paying.
        is_trial: compare with an empty ledger, delete nothing, and commit nothing.
        dry_run: write nothing.
    """

    mode: Mode = "snapshot"
    on_removed: OnRemoved = "keep"
    max_removed: str = MAX_REMOVED
    deleted: DeletedWhen | None = None
    max_dead_letters: str = MAX_DEAD_LETTERS
    source_format: Format | None = None
    passthrough: bool = False
    limit: int | None = None
    max_records: int
    max_bytes: int
    realtime: RealtimeLimit = RealtimeLimit()
    force: bool = False
    rebuild: bool = False
    is_trial: bool = False
    dry_run: bool = False


class PreparePlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what a run prepares.

    `manifest` is what is known of the run before its source is read, `at_s` the start of the partition's interval, or
    the time of the listing (epoch seconds).
    """

    manifest: Manifest
    listing: Listing
    request: IngestRequest
    at_s: float
    options: PrepareOptions

    def limits(self, adapter: ServiceAdapter) -> ShardLimits:
        """Return the limits of a shard."""
        options, inputs = self.options, len(self.manifest.inputs)
        return adapter.limits.of_shard(options.max_records, options.max_bytes, inputs=inputs)

    def open_jobs(self, objects: Objects, layout: Layout, adapter: ServiceAdapter) -> OpenJobs:
        """Return the jobs of other runs."""
        below, writes = self.options.realtime.below, not self.options.dry_run
        return OpenJobs(objects, layout, self.limits(adapter), realtime_below=below, writes=writes)


def scope_of(source: str, include: Sequence[str], exclude: Sequence[str]) -> str:
    """Return the name of the part of a pipeline that is one source."""
    return digest(source, *include, "", *exclude)[:SCOPE_DIGITS]


def fingerprint_of(
    request: IngestRequest,
    adapter: ServiceAdapter,
    parameters: Mapping[str, Any],
    inputs: Sequence[str],
    *,
    objects: Objects,
    index_body: Mapping[str, Any] | None,
    options: PrepareOptions,
) -> str:
    """Return the digest of everything that affects the documents of a pipeline, except the source."""
    mapped = with_source_paths(request, adapter, parameters, inputs)
    identity = [
        document_factory(mapped, Reading(objects)).identity,
        index_body,
        adapter.name,
        adapter.model(parameters),
        adapter.identity(parameters),
        list(inputs),
        options.deleted,
        options.source_format,
        # It decides which records count as removed, and which one of an id wins.
        options.mode,
    ]
    return digest(msgspec.json.encode(identity, order="deterministic").decode())
