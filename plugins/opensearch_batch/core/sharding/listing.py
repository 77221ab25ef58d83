"""A source as it was listed: what a run prepares, and by what is known whether there is news."""

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
        """Names this state of the source: another object, or another version of one, gives another."""
        return digest(*(f"{item.uri} {item.etag}" for item in self.objects))


class NoDocuments(ConfigError):
    """Nothing is where the documents should be."""


def list_source(objects: Objects, source: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Listing:
    """Return the objects of a source, which may be none."""
    return Listing(source, tuple(objects.list(source, include=include, exclude=exclude)))


def find_documents(
    objects: Objects, layout: Layout, source: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Listing:
    """Return the objects of a source.

    Raises:
        ConfigError: it holds what we write: each run would predict the last one's files.
        NoDocuments: there are none.
    """
    here, there = f"{source.rstrip('/')}/", f"{layout.root}/"
    if here.startswith(there) or there.startswith(here):
        raise ConfigError(f"source {source} and work {layout.root} lie in one another; keep them apart")
    found = list_source(objects, source, include=include, exclude=exclude)
    if not found.objects:
        globs = f" (include {list(include)}, exclude {list(exclude)})" if include or exclude else ""
        raise NoDocuments(f"{source}: no objects below this prefix{globs}; upload documents, or mend source")
    return found


class _Prepared(msgspec.Struct, frozen=True):
    digest: str
    done: bool


News = Literal["none", "unheard", "begun"]


def note_prepared(objects: Objects, layout: Layout, found: Listing, *, done: bool) -> None:
    """Note which state of a source a run prepares, or has prepared, so that nobody has to be told of it any more."""
    save(objects, layout.prepared(found.source), _Prepared(found.digest, done))


def news_of(objects: Objects, layout: Layout, found: Listing) -> News:
    """Say what runs know of this state of a source.

    none: one has prepared it, or it is empty. unheard: none has begun. begun: one has, and has not ended well yet.
    """
    if not found.objects:
        return "none"
    noted = JsonDocument(objects, layout.prepared(found.source), _Prepared).read()
    if noted is None or noted.digest != found.digest:
        return "unheard"
    return "none" if noted.done else "begun"
