"""Progress of an ingest, stored beside the data. It counts an entry only when all entries before it have a verdict.

Each pair of target and sources has one progress file with one writer: the attempt that began last. If `done` is set
in the file, the attempt writes nothing; after a crash, it continues at `settled`. If the fingerprint differs (other
source objects, field map or index), the work starts again, unless a run that listed its source later has written the
file: older work never overwrites newer work.
"""

from __future__ import annotations

import secrets

import msgspec

from opensearch_batch.core.storage.json_document import UNDECODABLE, JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestCounts, RunVersion


class Stamp(msgspec.Struct, frozen=True):
    """The part of a progress that all versions of this package can read.

    It identifies the attempt that wrote the progress, its work (`fingerprint`), its run and its dead letters.
    """

    fingerprint: str = ""
    dead_letters: str = ""
    attempt: str = ""
    run_version: RunVersion | None = None


class Progress(Stamp, frozen=True, kw_only=True):
    """The number of `settled` entries, which are read in a fixed order, and their counts.

    `attempt` is the attempt that wrote the progress last. `parts` is the number of dead letter files that count, by the
    attempt that wrote them. `run_version` is the version of the newest run with this work. A progress without a
    fingerprint only fences off older runs.
    """

    done: bool
    settled: int
    counts: IngestCounts
    parts: dict[str, int] = {}
    vectors_rejected: int = 0
    vector_reason: str = ""


class ProgressFile:
    """The progress of one ingest; one attempt at a time may write it.

    `attempt` is the id of this attempt: an increasing number and a random part, because two attempts may begin at once.
    `run_version` is the version of the run, or None if it has none. After `load`, `superseded` is True if a newer run
    wrote the progress.
    """

    def __init__(self, objects: Objects, uri: str, *, run_version: RunVersion | None = None) -> None:
        self.uri = uri
        self.superseded = False
        self._document = _document(objects, uri)
        self._run_version = run_version
        self._etag: str | None = None
        self.attempt = _next_attempt("")

    def load(self, fingerprint: str) -> Progress | None:
        """Return the progress of the work with this fingerprint, or None if there is none."""
        loaded = self._document.load()
        if loaded is None:
            return None
        stamp, stored = loaded.value, loaded.value.run_version
        self._etag, self.attempt = loaded.etag, _next_attempt(stamp.attempt)
        if stamp.fingerprint == fingerprint and stored is not None and not stored.is_before(self._run_version):
            # Both runs did the same work, so it counts as work of the newer run.
            self._run_version = stored
        self.superseded = self._is_older_than(stored)
        return stamp if isinstance(stamp, Progress) and stamp.fingerprint == fingerprint else None

    def begin(self, progress: Progress) -> bool:
        """Record the first progress of an attempt; return False if another attempt wrote since `load`."""
        return self._put(progress, self._etag)

    def confirm(self, progress: Progress) -> bool:
        """Record that finished work counts for this run too; return False if another attempt wrote since `load`."""
        return progress.run_version == self._run_version or self._put(progress, self._etag)

    def save(self, progress: Progress) -> bool:
        """Record the progress; return False if a later attempt took over."""
        loaded = self._document.load()
        if loaded is None:
            return self._put(progress, None)
        stamp = loaded.value
        if stamp.attempt == self.attempt:
            return self._put(progress, loaded.etag)
        newer = stamp.run_version
        if newer is not None and self._is_older_than(newer) and stamp.fingerprint not in ("", progress.fingerprint):
            # Bodies sent since the last checkpoint may have overwritten the newer run's documents, so its work is not
            # done.
            _fence_off(self._document, newer)
        return False

    def _is_older_than(self, other: RunVersion | None) -> bool:
        return self._run_version is not None and self._run_version.is_before(other)

    def _put(self, progress: Progress, etag: str | None) -> bool:
        progress = msgspec.structs.replace(progress, run_version=self._run_version)
        return self._document.swap(progress, etag=etag)


def fence_off(objects: Objects, uri: str, run_version: RunVersion) -> Stamp | None:
    """Mark the work as not done, with the version of this run.

    This fences off older runs, including one in progress. This run and newer runs start the work again. The returned
    stamp names the dead letters that became obsolete, if they belong to the scope of this run. If a newer run wrote the
    progress, it is not changed and the result is None.
    """
    return _fence_off(_document(objects, uri), run_version)


def _fence_off(document: JsonDocument[Stamp], run_version: RunVersion) -> Stamp | None:
    def fenced(stored: Stamp | None) -> Stamp | None:
        stamp = stored or Stamp()
        if run_version.is_before(stamp.run_version):
            return None
        same_scope = stamp.run_version is None or stamp.run_version.scope == run_version.scope
        return Progress(
            "",
            stamp.dead_letters if same_scope else "",
            _next_attempt(stamp.attempt),
            run_version,
            done=False,
            settled=0,
            counts=IngestCounts(),
        )

    return document.update(fenced)


def _document(objects: Objects, uri: str) -> JsonDocument[Stamp]:
    """Return the progress file. If another version of this package wrote it, only the stamp is read."""
    return JsonDocument(objects, uri, Progress, fallback=_stamp_in)


def _stamp_in(content: bytes) -> Stamp:
    try:
        return msgspec.json.decode(content, type=Stamp)
    except UNDECODABLE:
        return Stamp()


def _next_attempt(attempt: str) -> str:
    number = attempt.partition("-")[0]
    return f"{int(number or 0) + 1:06d}-{secrets.token_hex(4)}"
