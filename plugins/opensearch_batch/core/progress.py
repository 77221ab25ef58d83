"""How far an ingest came, beside the data: written only when everything before it has a verdict.

One record a place (an index and its sources). A repetition of finished work finds `done` and writes nothing; one after
a crash goes on at `settled`. Another fingerprint (other bytes, another map, another index) starts anew.
"""

from __future__ import annotations

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.manifest import save
from opensearch_batch.core.objects import Objects


class SourceCounts(msgspec.Struct, frozen=True):
    """Rows of one source.

    Of those `read`, `dead_letters` were rejected or refused by the index, `duplicates` came after another row of the
    same source with the same id and were merged over it, and `unmatched` have an id that some other source lacks.
    """

    source: str
    read: int = 0
    blank: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    unmatched: int = 0


class IngestCounts(msgspec.Struct, frozen=True):
    """Rows of all sources: ``read == indexed + unchanged + dead_letters + joined``.

    `joined` rows became part of another row's document or dead letter; `nulls` counts absent fields, `blank` lines are
    no rows.
    """

    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    joined: int = 0
    blank: int = 0
    nulls: int = 0
    unmatched: int = 0
    sources: list[SourceCounts] = []

    def reconcile(self, place: str) -> None:
        """Raise FatalError unless every row read has a verdict."""
        verdicts = self.indexed + self.unchanged + self.dead_letters + self.joined
        if self.read != verdicts:
            raise FatalError(f"{place}: read {self.read} rows, but {verdicts} have a verdict")


class Progress(msgspec.Struct, frozen=True):
    """What of one place is settled: `settled` entries of the deterministic stream, with their counts."""

    fingerprint: str
    done: bool
    settled: int
    counts: IngestCounts
    dead_letters: str
    parts: int = 0
    vectors_rejected: int = 0
    vector_reason: str = ""


class ProgressFile:
    """The progress of one place."""

    def __init__(self, objects: Objects, uri: str) -> None:
        self.uri = uri
        self._objects = objects

    def load(self, fingerprint: str) -> Progress | None:
        """Return what is settled of this very work, None when nothing is."""
        stored = self._objects.read(self.uri)
        if stored is None:
            return None
        try:
            found = msgspec.json.decode(stored.content, type=Progress)
        except msgspec.DecodeError:
            # Written by another version: the work is done again, with the same ids.
            return None
        return found if found.fingerprint == fingerprint else None

    def save(self, progress: Progress) -> None:
        """Record it."""
        save(self._objects, self.uri, progress)
