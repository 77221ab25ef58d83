"""Checks the index of a run before anything is paid for, and creates a missing one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.opensearch.cluster import Cluster, Index, check_dimension, field_type, vector_fields
from opensearch_batch.core.types.vector_field import VectorField


def check_index(
    cluster: Cluster,
    request: IngestRequest,
    fields: list[str],
    *,
    index_body: Mapping[str, Any] | None,
    dimension: int | None,
    in_place: bool = False,
) -> tuple[list[VectorField], str]:
    """Check that the index, or the body of a new index, fits what `ingest` will write; change nothing.

    Args:
        cluster: the cluster of the index.
        request: what `ingest` will write, as returned by `with_source_paths`.
        fields: the fields that `ingest` writes.
        index_body: settings and mappings for a new index.
        dimension: the length of the model's vectors, if known.
        in_place: the documents are updated, so the mapping needs the new fields.

    Returns:
        The vector fields that `ingest` will write, and the UUID of the index, empty if it is missing.

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
    if in_place and (unmapped := [name for name in fields if field_type(index, name) is None]):
        raise ConfigError(
            f"index {index.name}: field {unmapped[0]} is not mapped, so its vectors could not be searched; add it, as "
            f'by PUT /{index.name}/_mapping {{"properties": {{"{unmapped[0]}": {{"type": "knn_vector", "dimension": '
            f"{dimension or 384}}}}}}}"
        )
    if dimension is not None:
        check_dimension(index, fields, dimension)
    return [vector for vector in index.vectors if vector.name in fields], index.uuid


def create_missing_index(cluster: Cluster, name: str, index_body: Mapping[str, Any]) -> str:
    """Create an index if it is missing, and return its UUID.

    This is the last step of `prepare`, so that a refused run leaves no index.
    """
    if cluster.index(name) is None:
        cluster.create_index(name, index_body)
    index = cluster.index(name)
    if index is None:
        raise RetriableError(f"OpenSearch {cluster.name}: index {name!r} was created, but it is not found; run again")
    return index.uuid
