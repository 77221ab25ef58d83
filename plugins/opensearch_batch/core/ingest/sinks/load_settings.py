"""Index settings during a load, restored at its end whatever ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
    """The settings of an index before its current loads, and the attempt of each ingest that is loading."""

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
    """Change an index's settings while an attempt writes to it.

    The settings before are recorded below the work prefix until the last of several concurrent loads has ended. So a
    load that is killed does not leave its settings behind: the next attempt of its ingest restores them.
    """
    wanted = {} if settings is None else {k: v for k, v in msgspec.to_builtins(settings).items() if v is not None}
    if not wanted:
        yield
        return
    record = _LoadRecord(JsonDocument(objects, f"{attempt.work_prefix}/loads/{digest(index.uuid)}.json", Load))
    record.enter(lambda: {name: _settings(cluster, index).get(name) for name in wanted}, attempt)
    try:
        _put(cluster, index, wanted)
        yield
    finally:
        before = record.leave(attempt)
        if before:
            _put(cluster, index, before)
            record.forget()


def _settings(cluster: Cluster, index: Index) -> dict[str, Any]:
    now = cluster.index(index.name)
    return index.settings if now is None else now.settings


def _put(cluster: Cluster, index: Index, settings: Mapping[str, Any]) -> None:
    now = cluster.index(index.name)
    # An index that was deleted is reported by the writer; one that replaced it keeps its own settings.
    if now is not None and now.uuid == index.uuid:
        cluster.call("PUT", f"/{index.name}/_settings", {"index": dict(settings)})


class _LoadRecord:
    """The record of an index's concurrent loads, changed by conditional writes; empty when nothing is loading."""

    def __init__(self, document: JsonDocument[Load]) -> None:
        self._document = document

    def enter(self, settings: Callable[[], dict[str, Any]], attempt: Attempt) -> None:
        """Add a holder. The settings that the first one reads are restored, so they are read in the same exchange."""

        def entered(load: Load | None) -> Load:
            load = load or Load()
            return Load({**settings(), **load.before}, {**load.holders, attempt.prefix: attempt.id})

        self._document.update(entered)

    def leave(self, attempt: Attempt) -> dict[str, Any]:
        """Remove a holder, unless a later attempt replaced it; return the settings to restore if none is left."""
        own = attempt.prefix, attempt.id

        def left(load: Load | None) -> Load:
            load = load or Load()
            return Load(load.before, {prefix: by for prefix, by in load.holders.items() if (prefix, by) != own})

        load = self._document.update(left)
        return {} if load is None or load.holders else load.before

    def forget(self) -> None:
        """Empty the record after the settings were restored, unless another load began meanwhile."""
        load = self._document.load()
        if load and not load.value.holders:
            self._document.swap(Load(), etag=load.etag)
