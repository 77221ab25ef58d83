"""Chooses the object store by URI; a store is created on first use, so an unused one needs no credentials."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import IO

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.objects import Objects, Stored
from opensearch_batch.core.types.object_info import Compression, ObjectInfo

# The scheme of local files; a local path may omit it.
LOCAL = "file"


class Scheme(msgspec.Struct, frozen=True):
    """The store of one scheme; `bare_id` is a regular expression for ids that are written without ``scheme://``."""

    make: Callable[[], Objects]
    bare_id: str | None = None


class Stores:
    """Passes each call to the store of the URI's scheme; a name without a scheme is a `bare_id` or a local path.

    `below` maps prefixes to the stores of all URIs below them, whatever the store of their scheme.
    """

    def __init__(
        self, schemes: Mapping[str, Scheme], *, below: Mapping[str, Callable[[], Objects]] = MappingProxyType({})
    ) -> None:
        self._schemes = schemes
        self._below = below
        self._stores: dict[str, Objects] = {}

    def list(
        self,
        uri: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        after: str = "",
        limit: int | None = None,
    ) -> Iterator[ObjectInfo]:
        return self._store(uri).list(uri, include=include, exclude=exclude, after=after, limit=limit)

    def head(self, uri: str) -> ObjectInfo | None:
        return self._store(uri).head(uri)

    def read(self, uri: str) -> Stored | None:
        return self._store(uri).read(uri)

    def write(self, uri: str, content: bytes) -> None:
        self._store(uri).write(uri, content)

    def create(self, uri: str, content: bytes) -> bool:
        return self._store(uri).create(uri, content)

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        return self._store(uri).replace(uri, content, etag=etag)

    def upload(self, uri: str, content: IO[bytes]) -> None:
        self._store(uri).upload(uri, content)

    def delete(self, uri: str) -> None:
        self._store(uri).delete(uri)

    def open(
        self, uri: str, *, etag: str | None = None, compression: Compression | None = None, offset: int = 0
    ) -> IO[bytes]:
        return self._store(uri).open(uri, etag=etag, compression=compression, offset=offset)

    def _store(self, uri: str) -> Objects:
        prefix = next((prefix for prefix in self._below if uri.startswith(prefix)), None)
        name = self._scheme(uri) if prefix is None else prefix
        if name not in self._stores:
            try:
                self._stores[name] = self._schemes[name].make() if prefix is None else self._below[prefix]()
            except ConfigError as error:
                raise ConfigError(f"{uri}: {error}") from error
        return self._stores[name]

    def _scheme(self, uri: str) -> str:
        scheme, separator, _ = uri.partition("://")
        if not separator:
            patterns = ((name, entry.bare_id) for name, entry in self._schemes.items() if entry.bare_id)
            scheme = next((name for name, pattern in patterns if re.fullmatch(pattern, uri)), LOCAL)
        if scheme in self._schemes:
            return scheme
        if scheme == LOCAL:
            raise ConfigError(f"{uri}: local files are not supported here; upload them to S3")
        known = ", ".join(f"{name}://" for name in self._schemes)
        path = ", or a path" if LOCAL in self._schemes else ""
        raise ConfigError(f"{uri}: unknown scheme {scheme}://; give a URI that starts with one of {known}{path}")
