"""Readers of the files of runs, one for each connection; all requests of a process share them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.hooks.job_handle import shared_object_storage

if TYPE_CHECKING:
    from opensearch_batch.core.storage.objects import Objects

# The api-server gets at most 50 MB larger by all that pages need.
MAX_READERS, CACHE_BYTES = 16, 8 << 20


class _CurrentStorage:
    """The object storage of a connection; it follows a rotation of the connection's keys."""

    def __init__(self, aws_conn_id: str) -> None:
        self._aws_conn_id = aws_conn_id

    def __getattr__(self, name: str) -> object:
        return getattr(shared_object_storage(self._aws_conn_id), name)


@lru_cache(MAX_READERS)
def reader_of(aws_conn_id: str) -> CachedReader:
    """Return the reader of a connection."""
    return CachedReader(cast("Objects", _CurrentStorage(aws_conn_id)), cache_bytes=CACHE_BYTES)
