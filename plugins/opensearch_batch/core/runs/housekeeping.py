"""Housekeeping of a prediction store at the end of a run: compaction, within bounds, after the commit.

The heads of scopes count their predictions by segment. After a compaction they name segments that the store does not
have any more; their objects are counted again, and until then nothing is marked as unused.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING

from opensearch_batch.core.errors import AnswersUnusable
from opensearch_batch.core.ledger.compaction import AreNeeded, choose
from opensearch_batch.core.ledger.head import Entry, Head, ScopeHead, in_file_order
from opensearch_batch.core.ledger.key_index import KeyIndex, row_keys
from opensearch_batch.core.ledger.needed_segments import NeededSegments
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RowsReader
from opensearch_batch.core.ledger.scope_use import Scope, needed_segments, scopes_of
from opensearch_batch.core.ledger.store_head import StoreHead
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from opensearch_batch.core.ledger.key_index import Keys

# At the end of a run, nothing more is begun after this time.
COMPACTION_S = 60.0


class Housekeeper:
    """Compacts one prediction store; no work is begun after `compaction_s` seconds of the `clock`."""

    def __init__(
        self,
        objects: Objects,
        store: PredictionStore,
        *,
        compaction_s: float = COMPACTION_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._store = store
        self._clock = clock
        self._end = clock() + compaction_s

    def scopes(self) -> list[Scope]:
        """Return the scopes of all record ledgers that name segments of the store.

        Raises:
            FatalError: a head is damaged.
        """
        return scopes_of(self._objects, self._store.head().ledgers, f"{self._store.folder}/scopes.json")

    def compact(self) -> int:
        """Write sparse and small segments again, until there are none or the time is over; return how many.

        Raises:
            FatalError: a file of the store or of a ledger is missing or damaged.
        """
        done = 0
        try:
            scopes = self.recount()
            while not self._is_late():
                head = self._store.head()
                names = choose(head.segments, needed_segments(scopes, self._store.folder))
                if not names or not self._store.compact(names, self._are_needed(names, scopes)):
                    break
                done += len(names)
                scopes = self.recount()
        except AnswersUnusable as error:
            # What is lost is absent, so that the next compaction does without it.
            self._store.drop(error.name)
            raise
        return done

    def recount(self) -> list[Scope]:
        """Count the predictions again of objects that name segments the store does not have; return all scopes."""
        scopes, head = self.scopes(), self._store.head()
        needed, counted = NeededSegments[tuple[str, str]](self._store), list[tuple[Scope, dict[str, Entry]]]()
        for scope in scopes:
            if self._is_lacking(head, scope) and not self._is_late():
                objects = {uri: entry for uri, entry in self._load(scope).objects.items() if head.lacks(entry.segments)}
                for uri, rows in self._rows(objects):
                    needed.add((scope.head_uri, uri), rows)
                counted.append((scope, objects))
        counts = needed.close()
        for scope, objects in counted:
            segments = {uri: counts.get((scope.head_uri, uri), Counter()) for uri in objects}
            ScopeHead(self._objects, scope.head_uri).recount(objects, segments)
        return self.scopes() if counted else scopes

    def _are_needed(self, names: Sequence[str], scopes: Iterable[Scope]) -> AreNeeded:
        """Return the function that finds which keys the objects have that name some segments."""

        def are_needed(keys: Keys) -> NDArray[np.bool_]:
            import numpy as np

            index, is_needed = KeyIndex.of([keys]), np.zeros(len(keys), bool)
            for scope in scopes:
                if scope.use.segments.keys().isdisjoint(names):
                    continue
                head = self._load(scope)
                naming = {uri: each for uri, each in head.objects.items() if not each.segments.keys().isdisjoint(names)}
                for _, rows in self._rows(naming):
                    positions = index.find(row_keys(rows))
                    is_needed[positions[positions >= 0]] = True
            # Of equal keys, the index finds the same entry.
            return is_needed[index.find(keys)]

        return are_needed

    def _rows(self, objects: dict[str, Entry]) -> Iterator[tuple[str, pa.Table]]:
        """Yield the content keys of the rows of objects."""
        reader = RowsReader(self._objects)
        for uri, entry in in_file_order(objects):
            for rows in reader.read(entry, ("content_keys",)):
                yield uri, rows

    def _load(self, scope: Scope) -> Head:
        return ScopeHead(self._objects, scope.head_uri).load()

    def _is_lacking(self, head: StoreHead, scope: Scope) -> bool:
        """Return whether a scope that has its predictions in this store has to be counted again."""
        return scope.use.predictions == self._store.folder and head.lacks(scope.use.segments)

    def _is_late(self) -> bool:
        return self._clock() >= self._end


def compact_stores(objects: Objects, folders: Iterable[str]) -> int:
    """Compact prediction stores, however long it takes; return the number of segments that were written again."""
    return sum(Housekeeper(objects, PredictionStore(objects, each), compaction_s=inf).compact() for each in folders)
