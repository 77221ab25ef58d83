"""The index is checked, and made where a body is given, before anything is read; load settings are given back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from opensearch_batch.core.cluster import Cluster, Index
from opensearch_batch.core.errors import ConfigError, NotFound
from opensearch_batch.core.manifest import digest
from opensearch_batch.core.objects import Objects
from opensearch_batch.core.request import IngestRequest, LoadSettings

# The members of a mapping that must not differ: another value means other search results or refused documents.
_DECISIVE = ("type", "dimension", "data_type", "space_type")


class Load(msgspec.Struct, frozen=True):
    """The settings an index had before the first of its present loads, and who loads."""

    before: dict[str, Any]
    holders: list[str]


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
    objects: Objects, cluster: Cluster, index: Index, settings: LoadSettings | None, *, folder: str, holder: str
) -> Iterator[None]:
    """Change an index's settings while it is loaded.

    What they were stands in `folder` until the last of several loads is done, so that one which was killed
    does not leave them behind: its repetition, or any later load of the index, gives them back.
    """
    wanted = {} if settings is None else {k: v for k, v in msgspec.to_builtins(settings).items() if v is not None}
    if not wanted:
        yield
        return
    record = _LoadRecord(objects, f"{folder}/loads/{digest(index.uuid)}.json")
    record.enter({name: index.settings.get(name) for name in wanted}, holder)
    try:
        _put(cluster, index, wanted)
        yield
    finally:
        before = record.leave(holder)
        if before is not None:
            _put(cluster, index, before)
            record.forget()


def _put(cluster: Cluster, index: Index, settings: Mapping[str, Any]) -> None:
    try:
        cluster.call("PUT", f"/{index.name}/_settings", {"index": dict(settings)})
    except NotFound:
        # Deleted meanwhile: the writer says so, and there is nothing to give back.
        return


class _LoadRecord:
    """The shared account of an index's loads, moved by conditional writes."""

    def __init__(self, objects: Objects, uri: str) -> None:
        self._objects = objects
        self._uri = uri

    def enter(self, before: dict[str, Any], holder: str) -> None:
        """Add a holder; the first one's settings are those to give back."""
        while True:
            stored = self._objects.read(self._uri)
            if stored is None:
                if self._objects.create(self._uri, msgspec.json.encode(Load(before, [holder]))):
                    return
                continue
            load = msgspec.json.decode(stored.content, type=Load)
            joined = Load({**before, **load.before}, list(dict.fromkeys([*load.holders, holder])))
            if self._objects.replace(self._uri, msgspec.json.encode(joined), etag=stored.etag):
                return

    def leave(self, holder: str) -> dict[str, Any] | None:
        """Remove a holder; return the settings to give back if it was the last one."""
        while True:
            stored = self._objects.read(self._uri)
            if stored is None:
                return None
            load = msgspec.json.decode(stored.content, type=Load)
            rest = [other for other in load.holders if other != holder]
            if self._objects.replace(self._uri, msgspec.json.encode(Load(load.before, rest)), etag=stored.etag):
                return None if rest else load.before

    def forget(self) -> None:
        """Remove the account, after the settings were given back."""
        self._objects.delete(self._uri)


def mapped_vectors(index: Index, fields: Sequence[str]) -> list[str]:
    """Return the names of the mapped fields that are vectors in the index."""
    return [vector.name for vector in index.vectors if vector.name in fields]
