"""Reads many small JSON documents at once, and remembers those that cannot have changed.

A reader belongs to one process, which may ask it from several threads. Its memory is bounded.
"""

from __future__ import annotations

from opensearch_batch.core.storage.objects import Objects

MAX_CONCURRENT_READS = 16
CACHE_BYTES = 64 << 20


class CachedReader:
    """Reads documents of one store, several at a time.

    A document whose ETag a listing has returned is read once. `max_reads` bounds what one call reads beyond that; it
    returns which documents it has left out, and the next call reads those first.
    """

    def __init__(
        self, objects: Objects, *, max_concurrent: int = MAX_CONCURRENT_READS, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.objects = objects
        self._max_concurrent = max_concurrent
        self._cache_bytes = cache_bytes
