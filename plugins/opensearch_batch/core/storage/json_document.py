"""Typed JSON documents on object storage: read, write, create, compare-and-swap.

Several runs, and several attempts of one task, change the same document at once. Every change that depends on what is
stored is a conditional write, so exactly one of them wins; `update` reads again and repeats the change for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, RetriableError
from opensearch_batch.core.storage.objects import Objects

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
REMEDY = "restore its previous version, or delete it and run again"

T = TypeVar("T", bound=msgspec.Struct)


class Version(NamedTuple, Generic[T]):
    """A stored value with the ETag that a conditional write over it needs."""

    value: T
    etag: str


class JsonDocument(Generic[T]):
    """One JSON document, decoded as one type.

    Args:
        objects: the store.
        uri: the document's location.
        kind: the type of its value.
        indent: spaces a level, for people; -1 writes one line, for documents that grow with the source.
        fallback: returns the value of a content that is no `kind`; without it such a content is a FatalError.
        remedy: what a person does about such a content, for that error.
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
        """Return the value with its ETag, None when there is no document.

        Raises:
            FatalError: the content cannot be decoded.
        """
        stored = self._objects.read(self.uri)
        return None if stored is None else Version(self._decode(stored.content), stored.etag)

    def read(self) -> T | None:
        """Return the value, None when there is no document."""
        found = self.load()
        return None if found is None else found.value

    def require(self, absent: BatchError) -> T:
        """Return the value; raise `absent` when there is no document."""
        found = self.load()
        if found is None:
            raise absent
        return found.value

    def write(self, value: T) -> None:
        """Write the value, whatever is stored."""
        self._objects.write(self.uri, self._encode(value))

    def create(self, value: T) -> bool:
        """Write the value if there is no document; False when another process was first."""
        return self._objects.create(self.uri, self._encode(value))

    def swap(self, value: T, *, etag: str | None) -> bool:
        """Write the value over the version with this ETag (None: where there is none); False when it changed."""
        if etag is None:
            return self.create(value)
        return self._objects.replace(self.uri, self._encode(value), etag=etag)

    def update(self, change: Callable[[T | None], T | None], *, attempts: int | None = None) -> T | None:
        """Replace the value by what `change` makes of it; return that, None when it was left as it is.

        Args:
            change: gets the value (None when there is no document), returns the new one, or None to write nothing. It
                is called again for the newer value whenever another process was first.
            attempts: how often; without a bound if None.

        Raises:
            RetriableError: other processes were first at every attempt.
        """
        attempt = 0
        while attempts is None or attempt < attempts:
            attempt += 1
            found = self.load()
            value = change(None if found is None else found.value)
            if value is None or self.swap(value, etag=None if found is None else found.etag):
                return value
        raise RetriableError(f"{self.uri}: other runs change it at the same time; run again")

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
    """Write a typed value as a JSON document, whatever is stored."""
    JsonDocument(objects, uri, type(value)).write(value)


def load_manifest(objects: Objects, uri: str, kind: type[T]) -> T:
    """Read what `prepare` wrote for a run.

    Raises:
        ConfigError: there is none.
    """
    return JsonDocument(objects, uri, kind, remedy="clear prepare to write it again").require(
        ConfigError(f"{uri}: no manifest; clear prepare to write it")
    )


def read_all(objects: Objects, prefix: str, kind: type[T]) -> Iterator[tuple[JsonDocument[T], T]]:
    """Yield the documents below a prefix with their values, in key order; one removed since the listing is left out."""
    for item in list(objects.list(prefix)):
        document = JsonDocument(objects, item.uri, kind)
        if (value := document.read()) is not None:
            yield document, value
