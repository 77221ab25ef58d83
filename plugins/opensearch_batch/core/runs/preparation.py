"""Preparation of a run: everything that can be checked before a job is paid for, then the shards and their manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.prediction_map import check_passthrough, contains_record
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.jobs.contract import ServiceAdapter, job_keys
from opensearch_batch.core.opensearch.cluster import Cluster, Index, check_dimension, vector_fields
from opensearch_batch.core.sharding.listing import Listing
from opensearch_batch.core.sharding.passthrough import passthrough_shards
from opensearch_batch.core.sharding.shard_writer import ShardWriter
from opensearch_batch.core.storage.dead_letters import DeadLetter, DeadLetters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.manifest import Manifest
from opensearch_batch.core.types.vector_field import VectorField

SHOWN_SAMPLES = 3


class CutOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is cut into shards: at most `limit` records (None: all); `passthrough`: each object is a shard."""

    source_format: Format | None
    passthrough: bool
    limit: int | None
    max_records: int
    max_bytes: int


def check_index(
    cluster: Cluster,
    request: IngestRequest,
    fields: list[str],
    *,
    index_body: Mapping[str, Any] | None,
    dimension: int | None,
) -> list[VectorField]:
    """Check that the index, or the body of a new index, fits what `ingest` will write; change nothing.

    Args:
        cluster: the cluster of the index.
        request: what `ingest` will write, as returned by `with_source_paths`.
        fields: the fields that `ingest` writes.
        index_body: settings and mappings for a new index.
        dimension: the length of the model's vectors, if known.

    Returns:
        The vector fields that `ingest` will write.

    Raises:
        ConfigError: the index is missing and there is no body, or the index does not fit.
    """
    from opensearch_batch.core.ingest.sinks.index_target import refuse_plain_vectors, refuse_unwritable

    index = cluster.index(request.index)
    if index is None and index_body is not None:
        mappings = index_body.get("mappings", {})
        index = Index(request.index, "", vector_fields(mappings), mappings)
    if index is None:
        raise ConfigError(f"OpenSearch {cluster.name}: no index {request.index!r}; create it, or give index_body")
    refuse_unwritable(cluster, request, index)
    if request.processors is not None:
        refuse_plain_vectors(index, fields, "delete the index and give index_body, or name another")
    if dimension is not None:
        check_dimension(index, fields, dimension)
    return [vector for vector in index.vectors if vector.name in fields]


def create_missing_index(cluster: Cluster, name: str, index_body: Mapping[str, Any]) -> None:
    """Create an index if it is missing. This is the last step of `prepare`, so that a refused run leaves no index."""
    if cluster.index(name) is None:
        cluster.create_index(name, index_body)


def cut_source(
    objects: Objects,
    layout: Layout,
    listing: Listing,
    *,
    run_key: str,
    adapter: ServiceAdapter,
    parameters: dict[str, Any],
    inputs: Sequence[str],
    options: CutOptions,
    samples: list[DeadLetter] | None = None,
) -> Manifest:
    """Cut a source into shards and return the manifest, without model id, vector fields and run version.

    `samples` makes this a dry run: nothing is written, and the first dead letters are appended to `samples`.

    Raises:
        ConfigError: the service does not accept these shards.
        FatalError: the source holds no usable record (the dead letters are written).
    """
    limits = adapter.limits.of_shard(options.max_records, options.max_bytes, inputs=len(inputs))
    job_key, inputs = job_keys(adapter, parameters, inputs), tuple(inputs)
    with DeadLetters(objects, layout.dead_letters(run_key, "prepare")) as dead:
        if options.passthrough:
            if options.limit:
                raise ConfigError("source.prepare is false: objects are sent unchanged, so max_records cannot cut them")
            check_passthrough(adapter, parameters)
            shards, counts = passthrough_shards(objects, listing, limits=limits, job_key=job_key)
        else:
            shards, counts = ShardWriter(
                objects,
                layout,
                limits=limits,
                request_line=adapter.request_line(parameters, inputs),
                form=adapter.line_form(parameters, inputs),
                keeps_records=not contains_record(adapter, parameters),
                job_key=job_key,
                dead=dead,
                writes=samples is None,
            ).run(listing, source_format=options.source_format, limit=options.limit)
        if samples is not None:
            samples += islice(dead.unwritten(), SHOWN_SAMPLES)
        return Manifest(
            layout.pipeline,
            run_key,
            listing.source,
            adapter.name,
            "",
            counts,
            shards,
            dead.location,
            parameters=parameters,
            inputs=inputs,
        )
