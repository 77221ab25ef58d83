"""Typed JSON documents on object storage: read, write, create, compare-and-swap.

Several runs, and several attempts of one task, may change the same document concurrently. Every change that depends on
the stored value is a conditional write, so exactly one succeeds; `update` reads again and retries the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError
from opensearch_batch.core.storage.objects import Objects

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
REMEDY = "restore its previous version, or delete it and run again"

T = TypeVar("T", bound=msgspec.Struct)


class Version(NamedTuple, Generic[T]):
    """A stored value with its ETag, which a conditional write needs."""

    value: T
    etag: str


class JsonDocument(Generic[T]):
    """One JSON document, decoded as type `kind`.

    Args:
        indent: spaces per level; -1 writes one line, for documents that grow with the source.
        fallback: returns the value for content that is not a valid `kind`; without it, reading raises FatalError.
        remedy: what to do about invalid content, for the error message.
    """

    def __init__(
        self,
        objects: Objects,
        uri: str,
        kind: type[T],
        *,
        indent: int = 1,
        fallback: Callable[[bytes], T] | None = None,
        remedy: str = REMEDY,
    ) -> None:
        self.uri = uri
        self._objects = objects
        self._kind = kind
        self._indent = indent
        self._fallback = fallback
        self._remedy = remedy

    def load(self) -> Version[T] | None:
        """Return the value with its ETag, None if the document is absent; raise FatalError if it cannot be decoded."""
        stored = self._objects.read(self.uri)
        return None if stored is None else Version(self._decode(stored.content), stored.etag)

    def read(self) -> T | None:
        """Return the value, None if the document is absent."""
        stored = self.load()
        return None if stored is None else stored.value

    def require(self, absent: BatchError) -> T:
        """Return the value; raise `absent` if the document is absent."""
        if (value := self.read()) is None:
            raise absent
        return value

    def write(self, value: T) -> None:
        """Write the value unconditionally."""
        self._objects.write(self.uri, self._encode(value))

    def create(self, value: T) -> bool:
        """Write the value if the document is absent; return False if it exists."""
        return self._objects.create(self.uri, self._encode(value))

    def swap(self, value: T, *, etag: str | None) -> bool:
        """Write the value if the document still has this ETag (None: if it is absent); return False if it changed."""
        if etag is None:
            return self.create(value)
        return self._objects.replace(self.uri, self._encode(value), etag=etag)

    def update(self, change: Callable[[T | None], T | None]) -> T | None:
        """Replace the value by the result of `change` and return it; None if nothing was written.

        Args:
            change: gets the value (None if the document is absent) and returns the new one, or None to write nothing;
                called again with the newer value when another process has changed the document.
        """
        while True:
            stored = self.load()
            value = change(None if stored is None else stored.value)
            if value is None or self.swap(value, etag=None if stored is None else stored.etag):
                return value

    def _encode(self, value: T) -> bytes:
        content = msgspec.json.encode(value)
        return content if self._indent < 0 else msgspec.json.format(content, indent=self._indent)

    def _decode(self, content: bytes) -> T:
        try:
            return msgspec.json.decode(content, type=self._kind)
        except UNDECODABLE as error:
            if self._fallback is not None:
                return self._fallback(content)
            raise FatalError(
                f"{self.uri}: damaged, or written by another version of this package ({error}); {self._remedy}"
            ) from error


def save(objects: Objects, uri: str, value: msgspec.Struct) -> None:
    """Write a typed value as a JSON document, unconditionally."""
    JsonDocument(objects, uri, type(value)).write(value)


def load_manifest(objects: Objects, uri: str, kind: type[T]) -> T:
    """Return the manifest that `prepare` wrote for a run; raise ConfigError if it is absent."""
    absent = ConfigError(f"{uri}: no manifest; clear prepare to write it")
    return JsonDocument(objects, uri, kind, remedy="clear prepare to write it again").require(absent)


def read_all(objects: Objects, prefix: str, kind: type[T]) -> Iterator[tuple[JsonDocument[T], T]]:
    """Yield the documents below a prefix with their values, in key order; skip documents that are deleted meanwhile."""
    for item in list(objects.list(prefix)):
        document = JsonDocument(objects, item.uri, kind)
        if (value := document.read()) is not None:
            yield document, value
