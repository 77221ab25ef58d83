"""Lists a source, and compares its state with the state that the last run prepared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.dead_letters import PART_SUFFIX
from opensearch_batch.core.storage.globs import SourceUri
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, list_objects
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.object_info import ObjectInfo

# The scheme of a source whose objects are blocks of documents of an index.
INDEX_SCHEME = "opensearch"


def index_uri(conn_id: str, index: str) -> str:
    """Return the URI of an index as a source."""
    return f"{INDEX_SCHEME}://{conn_id}/{index}/"


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
    """Return the objects of a source; the listing may be empty."""
    return Listing(source, tuple(list_objects(objects, source, include=include, exclude=exclude)))


def find_documents(
    objects: Objects, layout: Layout, source: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Listing:
    """Return the objects of a source, which may be dead letters of `prepare`.

    Raises:
        ConfigError: the source overlaps with the work prefix, so each run would read the files of the previous run.
        NoDocuments: the source has no objects.
    """
    if layout.is_prepare_dead_letters(source):
        prefix = f"{source.rstrip('/')}/"
        listing = Listing(prefix, tuple(item for item in objects.list(prefix) if item.uri.endswith(PART_SUFFIX)))
    else:
        refuse_overlap(source, layout.root)
        listing = list_source(objects, source, include=include, exclude=exclude)
    if not listing.objects:
        globs = f" (include {list(include)}, exclude {list(exclude)})" if include or exclude else ""
        raise NoDocuments(f"{source}: no objects {_match(source)}{globs}; upload documents, or correct source")
    return listing


def refuse_overlap(source: str, work_prefix: str) -> None:
    """Raise ConfigError if a source may contain objects below the work prefix."""
    if SourceUri(source).overlaps(work_prefix):
        raise ConfigError(f"source {source} and work prefix {work_prefix} overlap; use separate prefixes")


def _match(source: str) -> str:
    uri = SourceUri(source)
    return "match this glob" if uri.is_glob else "of this name" if uri.is_object else "below this prefix"


class _SourceState(msgspec.Struct, frozen=True):
    digest: str
    done: bool


SourceChange = Literal["unchanged", "new", "started"]


def record_source_state(objects: Objects, layout: Layout, listing: Listing, *, done: bool) -> None:
    """Record that a run prepares the listed state (`done`: has prepared it), so that no other run starts for it."""
    save(objects, layout.source_state(listing.source), _SourceState(listing.digest, done))


def source_change(objects: Objects, layout: Layout, listing: Listing) -> SourceChange:
    """Compare a listing with the state that the last run recorded.

    unchanged: a run has prepared this state, or the source is empty. new: no run has started to prepare it. started: a
    run has started and has not succeeded yet.
    """
    if not listing.objects:
        return "unchanged"
    recorded = JsonDocument(objects, layout.source_state(listing.source), _SourceState).read()
    if recorded is None or recorded.digest != listing.digest:
        return "new"
    return "unchanged" if recorded.done else "started"
