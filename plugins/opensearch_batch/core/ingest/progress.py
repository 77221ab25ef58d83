"""Progress of an ingest, stored beside the data. It counts an entry only when all entries before it have a verdict.

Each pair of target and sources has one progress file with one writer: the attempt that began last. If `done` is set
in the file, the attempt writes nothing; after a crash, it continues at `settled`. If the fingerprint differs (other
source objects, field map or index), the work starts again.
"""

from __future__ import annotations

import secrets

import msgspec

from opensearch_batch.core.ledger.verdicts import RecordVerdict
from opensearch_batch.core.storage.json_document import UNDECODABLE, JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestCounts, Traffic
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.throughput import Throughput


class Stamp(msgspec.Struct, frozen=True):
    """The part of a progress that all versions of this package can read: its attempt, and its work (`fingerprint`)."""

    fingerprint: str = ""
    attempt: str = ""


class Progress(Stamp, frozen=True, kw_only=True):
    """The number of `settled` entries, which are read in a fixed order, and their counts.

    `attempt` is the attempt that wrote the progress last. `parts` is the number of dead letter files that count, by the
    attempt that wrote them, and `reasons` are those of their letters. `exceptions` are the object, line and state of
    the records that were not indexed, for an ingest that reports them.

    `identity` are the caller's parts of the fingerprint. `throughput` and `traffic` are totals of all attempts; the
    first one began at `started_at`. This progress was written at `written_at` (epoch seconds).
    """

    done: bool
    settled: int
    counts: IngestCounts
    dead_letters: str
    parts: dict[str, int] = {}
    vectors_rejected: int = 0
    vector_reason: str = ""
    exceptions: list[RecordVerdict] = []
    identity: list[str] = []
    reasons: list[LetterReason] = []
    throughput: Throughput = Throughput()
    traffic: Traffic = Traffic()
    started_at: float = 0.0
    written_at: float = 0.0


def progress_location(prefix: str) -> str:
    """Return the location of the progress of the ingest with this prefix."""
    return f"{prefix}/progress.json"


def counts_in_progress(objects: Objects, uri: str) -> IngestCounts | None:
    """Return the counts of an ingest that has begun and not ended, None if there is none at this location."""
    document: JsonDocument[Stamp] = JsonDocument(objects, uri, Progress, fallback=_stamp_in)
    stored = document.read()
    return stored.counts if isinstance(stored, Progress) and not stored.done else None


class ProgressFile:
    """The progress of one ingest; one attempt at a time may write it.

    `attempt` is the id of this attempt: an increasing number and a random part, because two attempts may begin at once.
    """

    def __init__(self, objects: Objects, uri: str) -> None:
        self.uri = uri
        # If another version of this package wrote the file, only the stamp is read.
        self._document: JsonDocument[Stamp] = JsonDocument(objects, uri, Progress, fallback=_stamp_in)
        self._etag: str | None = None
        self.attempt = _next_attempt("")

    def load(self, fingerprint: str) -> Progress | None:
        """Return the progress of the work with this fingerprint, or None if there is none."""
        loaded = self._document.load()
        if loaded is None:
            return None
        stamp = loaded.value
        self._etag, self.attempt = loaded.etag, _next_attempt(stamp.attempt)
        return stamp if isinstance(stamp, Progress) and stamp.fingerprint == fingerprint else None

    def begin(self, progress: Progress) -> bool:
        """Record the first progress of an attempt; return False if another attempt wrote since `load`."""
        return self._document.swap(progress, etag=self._etag)

    def save(self, progress: Progress) -> bool:
        """Record the progress; return False if a later attempt took over."""
        loaded = self._document.load()
        if loaded is not None and loaded.value.attempt != self.attempt:
            return False
        return self._document.swap(progress, etag=None if loaded is None else loaded.etag)


def _stamp_in(content: bytes) -> Stamp:
    try:
        return msgspec.json.decode(content, type=Stamp)
    except UNDECODABLE:
        return Stamp()


def _next_attempt(attempt: str) -> str:
    number = attempt.partition("-")[0]
    return f"{int(number or 0) + 1:06d}-{secrets.token_hex(4)}"
