"""Progress of an ingest, stored beside the data: written only when everything before it has a verdict.

There is one document for each pair of target and sources, with one writer: the attempt that began last. Repeating
finished work finds `done` and writes nothing; an attempt after a crash continues at `settled`. Another fingerprint
(other bytes, another map, another index) starts anew, unless a run that listed its source later has written here:
older work never follows newer work.
"""

from __future__ import annotations

import secrets

import msgspec

from opensearch_batch.core.storage.json_document import UNDECODABLE, JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestCounts, RunVersion


class Stamp(msgspec.Struct, frozen=True):
    """Which attempt wrote a progress, for which work and run, and where its dead letters are."""

    fingerprint: str = ""
    dead_letters: str = ""
    attempt: str = ""
    run_version: RunVersion | None = None


class Progress(Stamp, frozen=True, kw_only=True):
    """The number of `settled` entries of the deterministic stream, with their counts.

    `attempt` wrote it last; `parts` are the parts of dead letters that count, by the attempt that wrote them.
    `run_version` is that of the newest run with this work; without a fingerprint it says nothing but that version.
    """

    done: bool
    settled: int
    counts: IngestCounts
    parts: dict[str, int] = {}
    vectors_rejected: int = 0
    vector_reason: str = ""


class ProgressFile:
    """The progress of one ingest; one attempt at a time may write it.

    `attempt` is this attempt's id: a number that grows, and a random part, as two may begin at once. `run_version` is
    that of the run, None for work without one. After `load`, `superseded` says whether a newer run wrote here.
    """

    def __init__(self, objects: Objects, uri: str, *, run_version: RunVersion | None = None) -> None:
        self.uri = uri
        self.superseded = False
        self._document = _document(objects, uri)
        self._run_version = run_version
        self._etag: str | None = None
        self.attempt = _after("")

    def load(self, fingerprint: str) -> Progress | None:
        """Return the progress of exactly this work, None without any."""
        found = self._document.load()
        if found is None:
            return None
        stamp = found.value
        self._etag, self.attempt = found.etag, _after(stamp.attempt)
        if (
            stamp.fingerprint == fingerprint
            and stamp.run_version is not None
            and not stamp.run_version.is_before(self._run_version)
        ):
            # The same work for both runs, so it is as new as the newer of them.
            self._run_version = stamp.run_version
        self.superseded = self._run_version is not None and self._run_version.is_before(stamp.run_version)
        return stamp if isinstance(stamp, Progress) and stamp.fingerprint == fingerprint else None

    def begin(self, progress: Progress) -> bool:
        """Record the first progress of an attempt; False when another attempt wrote since `load`."""
        return self._put(progress, self._etag)

    def confirm(self, progress: Progress) -> bool:
        """Record that finished work is this run's too, which may be a newer one; False when another wrote since."""
        return progress.run_version == self._run_version or self._put(progress, self._etag)

    def save(self, progress: Progress) -> bool:
        """Record it; False when a later attempt took over."""
        found = self._document.load()
        if found is None:
            return self._put(progress, None)
        stamp = found.value
        if stamp.attempt == self.attempt:
            return self._put(progress, found.etag)
        newer = (
            stamp.run_version
            if self._run_version is not None and self._run_version.is_before(stamp.run_version)
            else None
        )
        if newer is not None and stamp.fingerprint not in ("", progress.fingerprint):
            # Bodies sent since the last record may have overwritten the newer run's documents: it is not done.
            _retire(self._document, newer)
        return False

    def _put(self, progress: Progress, etag: str | None) -> bool:
        progress = msgspec.structs.replace(progress, run_version=self._run_version)
        # The store's client retries a write whose response was lost, and then finds its own version.
        return self._document.swap(progress, etag=etag) or self._document.read() == progress


def retire(objects: Objects, uri: str, run_version: RunVersion) -> Stamp | None:
    """Mark the work as not done, with the version of this run; return what is stored then.

    This fences off older runs, including one in progress; the run itself and newer ones start anew. The progress of a
    newer run is left as it is: None. The result names the dead letters that became useless, those of the run's scope.
    """
    return _retire(_document(objects, uri), run_version)


def _retire(document: JsonDocument[Stamp], run_version: RunVersion) -> Stamp | None:
    def retired(stored: Stamp | None) -> Stamp | None:
        stamp = stored or Stamp()
        if run_version.is_before(stamp.run_version):
            return None
        same_scope = stamp.run_version is None or stamp.run_version.scope == run_version.scope
        return Progress(
            "",
            stamp.dead_letters if same_scope else "",
            _after(stamp.attempt),
            run_version,
            done=False,
            settled=0,
            counts=IngestCounts(),
        )

    return document.update(retired)


def _document(objects: Objects, uri: str) -> JsonDocument[Stamp]:
    """Return the document; one of another version of this package counts by its stamp only, so its work is repeated."""
    return JsonDocument(objects, uri, Progress, fallback=_stamp_in)


def _stamp_in(content: bytes) -> Stamp:
    try:
        return msgspec.json.decode(content, type=Stamp)
    except UNDECODABLE:
        return Stamp()


def _after(attempt: str) -> str:
    number = attempt.partition("-")[0]
    return f"{int(number or 0) + 1:06d}-{secrets.token_hex(4)}"
