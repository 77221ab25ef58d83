"""Counts the predictions that objects need by segment of the prediction store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

from opensearch_batch.core.ledger.key_index import row_keys
from opensearch_batch.core.ledger.predictions import PredictionStore

if TYPE_CHECKING:
    import pyarrow as pa

    from opensearch_batch.core.ledger.key_index import Keys

# The number of keys in one lookup, which may have the keys of several objects.
LOOKUP_KEYS = 1 << 20

T = TypeVar("T", bound=Hashable)


class NeededSegments(Generic[T]):
    """Counts the predictions of each object by segment."""

    def __init__(self, store: PredictionStore) -> None:
        self._store = store
        self._counts: dict[T, Counter[str]] = {}
        self._waiting: list[tuple[T, Keys]] = []
        self._waiting_keys = 0

    def add(self, name: T, rows: pa.Table) -> None:
        """Add the keys of rows of an object."""
        keys = row_keys(rows)
        self._waiting.append((name, keys))
        self._waiting_keys += len(keys)
        if self._waiting_keys >= LOOKUP_KEYS:
            self._count()

    def close(self) -> dict[T, Counter[str]]:
        """Return the counts; there are none of an object without keys."""
        self._count()
        return self._counts

    def _count(self) -> None:
        if not self._waiting_keys:
            return
        located, end = self._store.lookup(keys.tobytes() for _, keys in self._waiting), 0
        for name, keys in self._waiting:
            start, end = end, end + len(keys)
            self._counts.setdefault(name, Counter()).update(located.used_segments(start, end))
        self._waiting.clear()
        self._waiting_keys = 0
