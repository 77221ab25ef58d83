"""Lists a source, and compares its state with the state that the last run prepared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.object_info import ObjectInfo


class Listing(msgspec.Struct, frozen=True):
    """The objects of a source, in key order."""

    source: str
    objects: tuple[ObjectInfo, ...]

    @property
    def digest(self) -> str:
        """Digest of the state of the source; every new, changed or deleted object changes it."""
        return digest(*(f"{item.uri} {item.etag}" for item in self.objects))


class NoDocuments(ConfigError):
    """The source has no objects."""


def list_source(objects: Objects, source: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Listing:
    """Return the objects of a source; it may be empty."""
    return Listing(source, tuple(objects.list(source, include=include, exclude=exclude)))


def find_documents(
    objects: Objects, layout: Layout, source: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Listing:
    """Return the objects of a source.

    Raises:
        ConfigError: the source overlaps with the work prefix, so each run would read the files of the last one.
        NoDocuments: the source has no objects.
    """
    source_prefix, work_prefix = f"{source.rstrip('/')}/", f"{layout.root}/"
    if source_prefix.startswith(work_prefix) or work_prefix.startswith(source_prefix):
        raise ConfigError(f"source {source} and work prefix {layout.root} overlap; use separate prefixes")
    listing = list_source(objects, source, include=include, exclude=exclude)
    if not listing.objects:
        globs = f" (include {list(include)}, exclude {list(exclude)})" if include or exclude else ""
        raise NoDocuments(f"{source}: no objects below this prefix{globs}; upload documents, or correct source")
    return listing


class _Prepared(msgspec.Struct, frozen=True):
    digest: str
    done: bool


SourceChange = Literal["unchanged", "new", "started"]


def record_source_state(objects: Objects, layout: Layout, listing: Listing, *, done: bool) -> None:
    """Record that a run prepares the listed state, or has prepared it, so that no other run starts for that state."""
    save(objects, layout.source_state(listing.source), _Prepared(listing.digest, done))


def source_change(objects: Objects, layout: Layout, listing: Listing) -> SourceChange:
    """Compare a listing with the state that the last run recorded.

    unchanged: a run has prepared this state, or the source is empty. new: no run has started to prepare it. started: a
    run has started and has not succeeded yet.
    """
    if not listing.objects:
        return "unchanged"
    recorded = JsonDocument(objects, layout.source_state(listing.source), _Prepared).read()
    if recorded is None or recorded.digest != listing.digest:
        return "new"
    return "unchanged" if recorded.done else "started"
