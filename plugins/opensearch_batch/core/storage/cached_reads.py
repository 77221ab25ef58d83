"""Reads many small JSON documents at once, and remembers those that cannot have changed.

A reader belongs to one process, which may ask it from several threads. Its memory is bounded.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.json_document import UNDECODABLE
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.object_info import ObjectInfo

# As many connections as a boto3 client keeps open.
MAX_CONCURRENT_READS = 10
CACHE_BYTES = 64 << 20
# What the shortest entry counts for.
MIN_ENTRY_BYTES = 1_000
# What an object of a listing counts for.
LISTED_BYTES = 400

T = TypeVar("T", bound=msgspec.Struct)
W = TypeVar("W")


class Wanted(NamedTuple):
    """A document to read: its location, and a version of it that cannot change, usually the ETag from a listing.

    Equal versions of one location have equal content. The version is None if it is not known.
    """

    uri: str
    version: str | None = None


class ReadBudget:
    """How many documents a request may still read (None: any number), and how many were left `unread` because of it."""

    def __init__(self, max_reads: int | None = None) -> None:
        self.left = max_reads
        self.unread = 0

    def take(self, missing: Sequence[W]) -> Sequence[W]:
        """Return those that may be read, which are the first."""
        taken = missing[: self.left]
        self.unread += len(missing) - len(taken)
        if self.left is not None:
            self.left -= len(taken)
        return taken


class _Entry(NamedTuple):
    version: str | None
    value: Any
    size_bytes: int
    read_at: float


class CachedReader:
    """Reads documents of one store, several at a time, and remembers them.

    Args:
        objects: the store.
        max_concurrent: how many documents it reads at once, for all callers together.
        cache_bytes: the size of the documents that it remembers.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        max_concurrent: int = MAX_CONCURRENT_READS,
        cache_bytes: int = CACHE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objects = objects
        self._cache_bytes = cache_bytes
        self._clock = clock
        self._entries: OrderedDict[tuple[type, str], _Entry] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()
        # Its threads start when they are needed.
        self._pool = ThreadPoolExecutor(max_concurrent, thread_name_prefix="reads")

    def read(
        self,
        wanted: Sequence[Wanted],
        kind: type[T],
        *,
        budget: ReadBudget | None = None,
        fresh_s: Callable[[T | None], float] = lambda value: 0.0,  # noqa: ARG005 - nothing stays fresh
        damaged: Callable[[str], T] | None = None,
    ) -> dict[str, T | None]:
        """Return documents by location; one that is absent is None.

        A document beyond the budget has the value that was read last, or no entry; the next call reads it first.

        Args:
            wanted: the documents, the most important ones first.
            kind: their type.
            budget: how many documents may be read.
            fresh_s: how long a document of unknown version is not read again, given its value, in seconds.
            damaged: returns the value of a document that cannot be decoded, given its location.

        Raises:
            FatalError: a document cannot be decoded.
            RetriableError: the store did not respond.
        """
        entries, now = self._known(wanted, kind), self._clock()

        def is_current(each: Wanted) -> bool:
            entry = entries.get(each.uri)
            if entry is None:
                return False
            return now < entry.read_at + fresh_s(entry.value) if each.version is None else entry.version == each.version

        def age(each: Wanted) -> float:
            return entries[each.uri].read_at if each.uri in entries else float("-inf")

        # Sorting keeps the order of those that were not read yet.
        missing = sorted((each for each in wanted if not is_current(each)), key=age)
        chosen = (budget or ReadBudget()).take(missing)
        values = {uri: entry.value for uri, entry in entries.items()}
        loaded = self._pool.map(lambda each: self._load(each.uri, kind, damaged), chosen)
        for each, (value, size_bytes) in zip(chosen, loaded, strict=True):
            values[each.uri] = value
            self._remember((kind, each.uri), _Entry(each.version, value, max(size_bytes, MIN_ENTRY_BYTES), now))
        return values

    def read_one(self, uri: str, kind: type[T], *, version: str | None = None) -> T | None:
        """Return one document, None if it is absent."""
        return self.read([Wanted(uri, version)], kind)[uri]

    def listed(self, uri: str, *, fresh_s: float) -> list[ObjectInfo]:
        """Return the objects below a prefix, as they were listed at most `fresh_s` seconds ago."""
        return self.value(
            uri,
            lambda: list(self.objects.list(uri)),
            fresh_s=fresh_s,
            size_bytes=lambda items: len(items) * LISTED_BYTES,
        )

    def value(
        self,
        key: str,
        make: Callable[[], W],
        *,
        fresh_s: float,
        size_bytes: Callable[[W], int] = lambda value: 0,  # noqa: ARG005 - it is small
    ) -> W:
        """Return what `make` returned for a key at most `fresh_s` seconds ago, else what it returns now."""
        now = self._clock()
        with self._lock:
            entry = self._entries.get((object, key))
        if entry is None or now >= entry.read_at + fresh_s:
            made = make()
            entry = _Entry(None, made, max(size_bytes(made), MIN_ENTRY_BYTES), now)
            self._remember((object, key), entry)
        value: W = entry.value
        return value

    def _known(self, wanted: Sequence[Wanted], kind: type) -> dict[str, _Entry]:
        with self._lock:
            known = [(each.uri, (kind, each.uri)) for each in wanted if (kind, each.uri) in self._entries]
            for _, key in known:
                self._entries.move_to_end(key)
            return {uri: self._entries[key] for uri, key in known}

    def _remember(self, key: tuple[type, str], entry: _Entry) -> None:
        with self._lock:
            if (old := self._entries.pop(key, None)) is not None:
                self._size_bytes -= old.size_bytes
            self._entries[key] = entry
            self._size_bytes += entry.size_bytes
            while self._size_bytes > self._cache_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._size_bytes -= oldest.size_bytes

    def _load(self, uri: str, kind: type[T], damaged: Callable[[str], T] | None) -> tuple[T | None, int]:
        stored = self.objects.read(uri)
        if stored is None:
            return None, 0
        try:
            return msgspec.json.decode(stored.content, type=kind), len(stored.content)
        except UNDECODABLE as error:
            if damaged is not None:
                return damaged(uri), 0
            raise FatalError(
                f"{uri}: damaged, or written by another version of this package ({error}); clear the task that wrote it"
            ) from error
