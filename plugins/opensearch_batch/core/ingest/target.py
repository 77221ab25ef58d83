"""The index is checked, and made where a body is given, before anything is read; load settings are given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.request import IngestRequest, LoadSettings
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest

# The members of a mapping that must not differ: another value means other search results or refused documents.
_DECISIVE = ("type", "dimension", "data_type", "space_type")


class Load(msgspec.Struct, frozen=True):
    """The settings an index had before the first of its present loads, and who loads: the attempt at each place."""

    before: dict[str, Any] = {}
    holders: dict[str, str] = {}


def open_target(cluster: Cluster, request: IngestRequest) -> tuple[Index, str | None]:
    """Return the index to write to, and a remark when it had to be made without a body.

    Raises:
        ConfigError: it cannot be made, or it is there with other mappings than `index_body`.
    """
    index, remark = check_target(cluster, request), None
    if index is None:
        cluster.create_index(request.index, request.index_body or {})
        index = cluster.index(request.index)
        if request.index_body is None:
            remark = (
                f"index {request.index} was not there and is made with dynamic mappings: vectors are plain numbers "
                "there and cannot be searched; give index_body"
            )
    if index is None:
        raise ConfigError(f"OpenSearch {cluster.name}: index {request.index} was made and is gone; run again")
    return index, remark


def check_target(cluster: Cluster, request: IngestRequest) -> Index | None:
    """Return the index to write to, None when it has yet to be made; nothing is changed.

    Raises:
        ConfigError: it is there with other mappings than `index_body`.
    """
    index = cluster.index(request.index)
    if index is not None and request.index_body is not None:
        _check_mappings(index, request.index_body.get("mappings", {}))
    return index


def _check_mappings(index: Index, wanted: Mapping[str, Any]) -> None:
    wrong = list(_differences(index.mappings, wanted))
    if wrong:
        raise ConfigError(
            f"index {index.name} is there with other mappings than index_body: {'; '.join(wrong)}. "
            "Name another index, or mend index_body"
        )


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    there = found.get("properties", {})
    for name, field in wanted.get("properties", {}).items():
        if name not in there:
            yield f"{prefix}{name} is not mapped"
            continue
        for member in _DECISIVE:
            expected = field.get(member)
            actual = there[name].get(member)
            if expected not in (None, "object") and str(expected) != str(actual):
                yield f"{prefix}{name}.{member} is {actual}, not {expected}"
        yield from _differences(there[name], field, f"{prefix}{name}.")


@contextmanager
def during_load(
    objects: Objects,
    cluster: Cluster,
    index: Index,
    settings: LoadSettings | None,
    *,
    folder: str,
    place: str,
    attempt: str,
) -> Iterator[None]:
    """Change an index's settings while it is loaded.

    What they were stands in `folder` until the last of several loads is done, so that one which was killed
    does not leave them behind: the next attempt at its place gives them back.
    """
    wanted = {} if settings is None else {k: v for k, v in msgspec.to_builtins(settings).items() if v is not None}
    if not wanted:
        yield
        return
    record = _LoadRecord(JsonDocument(objects, f"{folder}/loads/{digest(index.uuid)}.json", Load))
    record.enter(lambda: {name: _settings(cluster, index).get(name) for name in wanted}, place, attempt)
    try:
        _put(cluster, index, wanted)
        yield
    finally:
        before = record.leave(place, attempt)
        if before:
            _put(cluster, index, before)
            record.forget()


def _settings(cluster: Cluster, index: Index) -> dict[str, Any]:
    now = cluster.index(index.name)
    return index.settings if now is None else now.settings


def _put(cluster: Cluster, index: Index, settings: Mapping[str, Any]) -> None:
    now = cluster.index(index.name)
    # Deleted meanwhile: the writer says so; and what came in its place keeps its own.
    if now is not None and now.uuid == index.uuid:
        cluster.call("PUT", f"/{index.name}/_settings", {"index": dict(settings)})


class _LoadRecord:
    """The shared account of an index's loads, moved by conditional writes; an empty one says that nobody loads."""

    def __init__(self, document: JsonDocument[Load]) -> None:
        self._document = document

    def enter(self, settings: Callable[[], dict[str, Any]], place: str, attempt: str) -> None:
        """Add a holder; what the first one finds is to be given back, so nobody may enter between look and entry."""

        def entered(load: Load | None) -> Load:
            load = load or Load()
            return Load({**settings(), **load.before}, {**load.holders, place: attempt})

        self._document.update(entered)

    def leave(self, place: str, attempt: str) -> dict[str, Any]:
        """Remove a holder, unless another attempt took its place; return the settings to give back if none is left."""

        def left(load: Load | None) -> Load:
            load = load or Load()
            return Load(
                load.before, {other: by for other, by in load.holders.items() if (other, by) != (place, attempt)}
            )

        load = self._document.update(left)
        return {} if load is None or load.holders else load.before

    def forget(self) -> None:
        """Empty the account after the settings were given back, unless somebody entered meanwhile."""
        found = self._document.load()
        if found and not found.value.holders:
            self._document.swap(Load(), etag=found.etag)
