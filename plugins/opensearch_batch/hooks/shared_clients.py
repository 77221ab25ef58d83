"""Clients that all triggers of a process share. Creating one for each of thousands of triggers takes minutes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from typing import TypeVar

from cachetools import TTLCache, cached

from opensearch_batch.core.errors import BatchError, RetriableError

T = TypeVar("T")
# A new client reads its connection again, so rotated credentials are used after at most this time.
KEEP_S = 300.0


class SharedClients:
    """Clients by key. One thread creates the client of a key while others wait for it; errors are not cached."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        @cached(
            TTLCache[Hashable, object](math.inf, KEEP_S, timer=clock),
            key=lambda key, make: key,  # noqa: ARG005 - `make` is not part of the key
            condition=threading.Condition(),
        )
        def get(key: Hashable, make: Callable[[], object]) -> object:  # noqa: ARG001 - `key` is only the cache's key
            return make()

        self._get = get

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the client of a key; call `make` if there is none, or if it is older than `KEEP_S`."""
        return self._get(key, make)  # type: ignore[return-value] # the cache holds clients of several types


_clients = SharedClients()


def shared_client(kind: str, conn_id: str, make: Callable[[], T]) -> T:
    """Return the client of a connection that all triggers of this process share.

    Unexpected errors are raised as RetriableError: they must not end thousands of waits.
    """
    try:
        return _clients.get((kind, conn_id), make)
    except BatchError:
        raise
    except Exception as error:
        raise RetriableError(f"connection {conn_id}: could not create a client for {kind} ({error!r})") from error
