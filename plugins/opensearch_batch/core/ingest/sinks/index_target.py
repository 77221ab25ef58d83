"""Looks up the index of a request, or creates it, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opensearch_batch.core.errors import ConfigError, NotFound
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.opensearch.cluster import Cluster, Index

# Members of a mapping that must be equal; a different value changes search results or makes the index refuse documents.
_COMPARED = ("type", "dimension", "data_type", "space_type")


def open_target(cluster: Cluster, request: IngestRequest) -> tuple[Index, str | None]:
    """Return the index to write to, created if it is absent, and a remark; raise ConfigError as `check_target` does."""
    index, remark = check_target(cluster, request), None
    if index is None:
        cluster.create_index(request.index, request.index_body or {})
        index = cluster.index(request.index)
        if request.index_body is None:
            remark = (
                f"index {request.index} was absent and was created with dynamic mappings: vectors are plain numbers "
                "there and cannot be searched; give index_body"
            )
    if index is None:
        raise ConfigError(f"OpenSearch {cluster.name}: index {request.index} was created and then deleted; run again")
    return index, remark


def check_target(cluster: Cluster, request: IngestRequest) -> Index | None:
    """Return the index, None if it is absent; raise ConfigError if it has other mappings than `index_body`."""
    index = cluster.index(request.index)
    refuse_unwritable(cluster, request, index)
    if index is not None and request.index_body is not None:
        wrong = list(_differences(index.mappings, request.index_body.get("mappings", {})))
        if wrong:
            raise ConfigError(
                f"index {index.name} exists with other mappings than index_body: {'; '.join(wrong)}. "
                "Name another index, or correct index_body"
            )
    return index


def refuse_unwritable(cluster: Cluster, request: IngestRequest, index: Index | None) -> None:
    """Raise ConfigError if every write would fail: the ingest pipeline is absent, or a data stream refuses `op_type`.

    Without permission to read ingest pipelines, their existence is not checked.
    """
    settings = {} if index is None else index.settings
    for name in (request.ingest_pipeline, settings.get("default_pipeline"), settings.get("final_pipeline")):
        if name not in (None, "", "_none"):
            try:
                cluster.call("GET", f"/_ingest/pipeline/{name}")
            except NotFound:
                raise ConfigError(
                    f"OpenSearch {cluster.name}: no ingest pipeline {name!r}, through which index {request.index} is "
                    "written; create it, or name another"
                ) from None
            except ConfigError:
                pass
    if index is not None and index.is_data_stream and request.op_type != "create":
        raise ConfigError(
            f"{request.index} is a data stream, which accepts only op_type create; set op_type create, or name an index"
        )


def _differences(stored: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    properties = stored.get("properties", {})
    for name, field in expected.get("properties", {}).items():
        if name not in properties:
            yield f"{prefix}{name} is not mapped"
            continue
        for member in _COMPARED:
            value = field.get(member)
            actual = properties[name].get(member)
            if value not in (None, "object") and str(value) != str(actual):
                yield f"{prefix}{name}.{member} is {actual}, not {value}"
        yield from _differences(properties[name], field, f"{prefix}{name}.")


def refuse_plain_vectors(
    index: Index,
    fields: Sequence[str],
    remedy: str = "delete the index (it is created again with knn_vector), or name another",
) -> None:
    """Raise ConfigError if one of the fields for predictions is mapped with another type than `knn_vector`."""
    vectors = {vector.name for vector in index.vectors}
    properties = index.mappings.get("properties", {})
    for name in fields:
        kind = properties.get(name, {}).get("type")
        if kind is not None and name not in vectors:
            raise ConfigError(
                f"index {index.name}: field {name} is mapped as {kind}, so its vectors could not be searched; {remedy}"
            )
