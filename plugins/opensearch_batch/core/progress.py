"""How far an ingest came, beside the data: written only when everything before it has a verdict.

One record a place (an index and its sources), and one writer: the attempt that began last. A repetition of finished
work finds `done` and writes nothing; one after a crash goes on at `settled`. Another fingerprint (other bytes, another
map, another index) starts anew.
"""

from __future__ import annotations

import secrets

import msgspec

from opensearch_batch.core.errors import FatalError
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
    """Rows of all sources: ``read == indexed + unchanged + dead_letters + joined + unrouted + dropped + elsewhere``.

    `joined` rows became part of another row's document or dead letter; `nulls` counts absent fields, `blank` lines are
    no rows. Of the rows that a pipeline's own rules keep out, `unrouted` ones go to no sink, `elsewhere` ones to
    others, and `dropped` ones were dropped by a processor.
    """

    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    joined: int = 0
    blank: int = 0
    nulls: int = 0
    unmatched: int = 0
    unrouted: int = 0
    dropped: int = 0
    elsewhere: int = 0
    sources: list[SourceCounts] = []

    def reconcile(self, place: str) -> None:
        """Raise FatalError unless every row read has a verdict."""
        verdicts = self.indexed + self.unchanged + self.dead_letters + self.joined
        verdicts += self.unrouted + self.dropped + self.elsewhere
        if self.read != verdicts:
            raise FatalError(f"{place}: read {self.read} rows, but {verdicts} have a verdict")


class Progress(msgspec.Struct, frozen=True):
    """What of one place is settled: `settled` entries of the deterministic stream, with their counts.

    `attempt` wrote it last; `parts` are the parts of dead letters that count, by the attempt that wrote them.
    """

    fingerprint: str
    done: bool
    settled: int
    counts: IngestCounts
    dead_letters: str
    parts: dict[str, int] = {}
    vectors_rejected: int = 0
    vector_reason: str = ""
    attempt: str = ""


class _Attempt(msgspec.Struct, frozen=True):
    """Who wrote a progress, whatever else stands in it."""

    attempt: str = ""


class ProgressFile:
    """The progress of one place; one attempt at a time may write it.

    `attempt` names the one that this file is for: a number that grows, and a random part, as two may begin at once.
    """

    def __init__(self, objects: Objects, uri: str) -> None:
        self.uri = uri
        self._objects = objects
        self._etag: str | None = None
        self.attempt = _after("")

    def load(self, fingerprint: str) -> Progress | None:
        """Return what is settled of this very work, None when nothing is."""
        stored = self._objects.read(self.uri)
        if stored is None:
            return None
        self._etag, self.attempt = stored.etag, _after(_attempt_in(stored.content))
        try:
            found = msgspec.json.decode(stored.content, type=Progress)
        except msgspec.DecodeError:
            # Written by another version: the work is done again, with the same ids.
            return None
        return found if found.fingerprint == fingerprint else None

    def begin(self, progress: Progress) -> bool:
        """Record the first progress of an attempt; False when somebody wrote since `load`."""
        return self._put(progress, self._etag)

    def save(self, progress: Progress) -> bool:
        """Record it; False when a later attempt took over."""
        stored = self._objects.read(self.uri)
        if stored is not None and _attempt_in(stored.content) != self.attempt:
            return False
        return self._put(progress, None if stored is None else stored.etag)

    def _put(self, progress: Progress, etag: str | None) -> bool:
        content = msgspec.json.format(msgspec.json.encode(progress), indent=1)
        if etag is None:
            done = self._objects.create(self.uri, content)
        else:
            done = self._objects.replace(self.uri, content, etag=etag)
        # A write whose answer was lost is repeated by the store's client, and finds itself in its way.
        return done or ((stored := self._objects.read(self.uri)) is not None and stored.content == content)


def _attempt_in(content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=_Attempt).attempt
    except msgspec.DecodeError:
        return ""


def _after(attempt: str) -> str:
    number = attempt.partition("-")[0]
    return f"{int(number or 0) + 1:06d}-{secrets.token_hex(4)}"
