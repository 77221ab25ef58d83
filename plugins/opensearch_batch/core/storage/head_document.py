"""Heads: JSON documents with the current state of a scope, store or scan, replaced by compare-and-swap.

If several runs change a head at once, each sees the changes of those before it, so no change is lost. A run recognizes
a write whose response was lost by its token, and does not repeat it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from opensearch_batch.core.errors import FatalError, RetriableError
from opensearch_batch.core.storage.json_document import JsonDocument, Version
from opensearch_batch.core.storage.objects import Objects

# Each failed attempt is a success of another run, so the limit is never reached.
ATTEMPTS = 1_000


class NumberedHead(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of the heads: every write increments `number` and draws a `token`, which no other write has."""

    number: int = 0
    token: str = ""


T = TypeVar("T", bound=NumberedHead)


class HeadDocument(Generic[T]):
    """A head on object storage.

    Args:
        objects: the store.
        uri: the location of the head.
        kind: the type of the head; all its fields have defaults, which are those of an absent head.
        remedy: what to do about a damaged head, for the error message.
    """

    def __init__(self, objects: Objects, uri: str, kind: type[T], *, remedy: str) -> None:
        self.uri = uri
        self._document = JsonDocument(objects, uri, kind, indent=-1, remedy=remedy)
        self._kind = kind

    def load(self) -> T:
        """Return the head; an empty one if it is absent."""
        return self._load().value

    def change(self, change: Callable[[T], T]) -> T:
        """Replace the head by the result of `change` and return it; an equal result is not written.

        `change` is called again if another run was faster, also if it raised a FatalError: a file that the head named
        may be gone, because another run has replaced the head meanwhile.

        Raises:
            RetriableError: other runs changed the head at every attempt.
        """
        stored = self._load()
        for _ in range(ATTEMPTS):
            try:
                value = change(stored.value)
            except FatalError:
                newer = self._load()
                if newer.value == stored.value:
                    raise
                stored = newer
                continue
            if value == stored.value:
                return value
            head = _numbered(value, stored.value)
            if self._document.swap(head, etag=stored.etag or None):
                return head
            # The stored head may be this run's own: the client repeats a write whose response was lost.
            stored = self._load()
            if stored.value.token == head.token:
                return head
        raise RetriableError(f"{self.uri}: other runs changed this document at every attempt; run again")

    def write(self, value: T, *, after: T) -> None:
        """Replace the head, whatever is stored; it gets the number after that of an earlier head."""
        self._document.write(_numbered(value, after))

    def _load(self) -> Version[T]:
        return self._document.load() or Version(self._kind(), "")


def _numbered(value: T, after: T) -> T:
    return msgspec.structs.replace(value, number=after.number + 1, token=secrets.token_hex(8))
