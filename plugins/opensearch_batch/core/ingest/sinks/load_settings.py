"""Changes index settings during a load, and restores them even if the load fails or is killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from opensearch_batch.core.ingest.request import LoadSettings
from opensearch_batch.core.ingest.sinks.base import Attempt
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest


class Load(msgspec.Struct, frozen=True):
    """The settings of an index before its current loads; `holders` are the attempts that load it, by ingest prefix."""

    before: dict[str, Any] = {}
    holders: dict[str, str] = {}


@contextmanager
def during_load(
    objects: Objects,
    cluster: Cluster,
    index: Index,
    settings: LoadSettings | None,
    *,
    attempt: Attempt,
) -> Iterator[None]:
    """Change an index's settings while an attempt writes to it, and restore them.

    The original settings are stored below the work prefix until the last of several concurrent loads has ended. If a
    load is killed, the next attempt of its ingest restores them.
    """
    options = {} if settings is None else msgspec.to_builtins(settings)
    changes = {name: value for name, value in options.items() if value is not None}
    if not changes:
        yield
        return
    holder = attempt.prefix, attempt.id

    def enter(load: Load | None) -> Load:
        load = load or Load()
        # Read for each conditional write: the settings of a load that has just ended are not the original ones.
        stored = (cluster.index(index.name) or index).settings
        before = {name: stored.get(name) for name in changes} | load.before
        return Load(before, {**load.holders, attempt.prefix: attempt.id})

    def leave(load: Load | None) -> Load:
        load = load or Load()
        # A later attempt of the same ingest may have replaced this attempt.
        return Load(load.before, dict(other for other in load.holders.items() if other != holder))

    document = JsonDocument(objects, f"{attempt.work_prefix}/loads/{digest(index.uuid)}.json", Load)
    document.update(enter)
    try:
        _put(cluster, index, changes)
        yield
    finally:
        load = document.update(leave)
        if load and load.before and not load.holders:
            _put(cluster, index, load.before)
            # The document is emptied only if no other load has begun since.
            stored = document.load()
            if stored and not stored.value.holders:
                document.swap(Load(), etag=stored.etag)


def _put(cluster: Cluster, index: Index, settings: Mapping[str, Any]) -> None:
    current = cluster.index(index.name)
    # The writer reports a deleted index. The settings of an index that replaced it are not changed.
    if current is not None and current.uuid == index.uuid:
        cluster.call("PUT", f"/{index.name}/_settings", {"index": dict(settings)})
