"""What each scope of a record ledger uses: segments of a prediction store, and files of rows.

A use is computed from the head of the scope, and kept beside the prediction store with the ETag of the head. So a run
reads only the heads that have changed since the last run, however many partitions there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from opensearch_batch.core.ledger.head import Head
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects, list_folders
from opensearch_batch.core.types.object_info import ObjectInfo


class ScopeUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a scope uses.

    `etag` is that of the head. `predictions` is the folder of the prediction store of its last run, empty if that is
    not known. `unfinished` is the key of a run that has claimed the scope and has not committed. `segments` counts
    predictions by segment; 0 if the number is not known. `files` are the files of rows and deletions.
    """

    etag: str = ""
    predictions: str = ""
    unfinished: str = ""
    segments: dict[str, int] = {}
    files: list[str] = []

    @classmethod
    def of(cls, head: Head, etag: str) -> ScopeUse:
        """Return the use of a head."""
        segments = dict[str, int]()
        for entry in head.objects.values():
            for name, count in entry.segments.items():
                segments[name] = segments.get(name, count) and count and segments.get(name, 0) + count
        unfinished = head.claim.run_key if head.claim.version != head.committed else ""
        return cls(etag, head.predictions, unfinished, segments, sorted(head.files()))


class ScopeUses(msgspec.Struct, frozen=True):
    """The uses of scopes by the URI of their heads."""

    uses: dict[str, ScopeUse] = {}


class Scope(NamedTuple):
    """A scope: the folder of its ledger, the URI of its head, its use, and all objects in its folder."""

    ledger: str
    head_uri: str
    use: ScopeUse
    items: Sequence[ObjectInfo]


def scopes_of(objects: Objects, ledgers: Iterable[str], cache_uri: str, *, writes: bool = True) -> list[Scope]:
    """Return the scopes in the folders of record ledgers; with `writes`, keep their uses in a file for the next call.

    Raises:
        FatalError: a head is damaged.
    """
    cache = JsonDocument(objects, cache_uri, ScopeUses, indent=-1, fallback=lambda _: ScopeUses())
    known = (cache.read() or ScopeUses()).uses
    scopes = [
        Scope(ledger, uri := f"{folder}/head.json", _use(objects, uri, items, known), items)
        for ledger in ledgers
        for folder, items in list_folders(objects, ledger)
    ]
    uses = {scope.head_uri: scope.use for scope in scopes}
    if writes and uses != known:
        cache.write(ScopeUses(uses))
    return scopes


def needed_segments(scopes: Iterable[Scope], predictions: str) -> dict[str, int]:
    """Return how many predictions each segment has that scopes with this prediction store need; 0 if not known."""
    needed = dict[str, int]()
    for scope in scopes:
        if scope.use.predictions in ("", predictions):
            for name, count in scope.use.segments.items():
                needed[name] = needed.get(name, count) and count and needed.get(name, 0) + count
    return needed


def _use(objects: Objects, uri: str, items: Iterable[ObjectInfo], known: Mapping[str, ScopeUse]) -> ScopeUse:
    etag = next((item.etag for item in items if item.uri == uri), "")
    use = known.get(uri)
    if use is not None and etag and use.etag == etag:
        return use
    stored = JsonDocument(objects, uri, Head).load()
    return ScopeUse() if stored is None else ScopeUse.of(stored.value, stored.etag)
