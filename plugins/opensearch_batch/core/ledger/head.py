"""Head of a scope of the record ledger: a JSON document that names the current rows, replaced by compare-and-swap.

A run claims the head before its first write and commits after its last one. So of two runs of one scope, only the one
that claimed last commits, and the ledger is never ahead of the index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ledger.garbage import MarkedHead
from opensearch_batch.core.ledger.rows import RowsSlice
from opensearch_batch.core.storage.head_document import HeadDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import Savings
from opensearch_batch.core.types.manifest import ScopeClaim
from opensearch_batch.core.types.versions import next_version

NO_CLAIM = ScopeClaim(0, "")


class ClaimLost(FatalError):
    """Another run has claimed the scope since: this run may neither write documents nor commit."""


class Entry(RowsSlice, frozen=True, omit_defaults=True, kw_only=True):
    """A source object as the ledger last read it, and where its rows are.

    `etag` is empty while some of its records have no verdict, so that the next run opens the object again. `modified`
    orders the objects of a source in append mode (epoch seconds). `segments` counts the object's predictions by
    segment of the prediction store. The documents of a `stale` object were made with an earlier fingerprint, so they
    are written again.
    """

    etag: str
    modified: float = 0.0
    segments: dict[str, int] = msgspec.field(default_factory=dict)
    stale: bool = False


class RunLedger(msgspec.Struct, frozen=True):
    """What a run will commit: the objects with pending rows, and the objects that the source no longer has.

    The rows of `unread` objects get no verdicts, because the objects changed while the run read them. The `waiting`
    records, by object and line, were not staged, because they are too few for a job. All these objects have no ETag.
    """

    entries: dict[str, Entry] = {}
    removed: list[str] = []
    unread: list[str] = []
    waiting: list[tuple[str, int]] = []


class Head(MarkedHead, frozen=True, omit_defaults=True):
    """The state of a scope.

    `committed` is the version of the run that committed last, `announced` that of the run that last announced what it
    is going to write. `index_uuid` identifies the index that has the documents, `fingerprint` the settings by which
    records became documents. `objects` are the source objects by URI. `deletions` is the file of the documents that
    runs deleted, or did not delete, before they failed. `predictions` is the folder of the prediction store that the
    last run used.
    """

    claim: ScopeClaim = NO_CLAIM
    announced: int = 0
    committed: int = 0
    index: str = ""
    index_uuid: str = ""
    fingerprint: str = ""
    objects: dict[str, Entry] = msgspec.field(default_factory=dict)
    deletions: str = ""
    predictions: str = ""
    savings: Savings = Savings()

    def files(self) -> set[str]:
        """Return the files of rows and deletions that the head names."""
        return {entry.rows for entry in self.objects.values()} | {self.deletions} - {""}

    @property
    def documents(self) -> int:
        """The number of records that have, or should have, a document."""
        return sum(entry.documents for entry in self.objects.values())

    def for_target(self, *, index: str, index_uuid: str, fingerprint: str) -> Head:
        """Return the head as a run has to see it that writes to an index, with settings of this fingerprint.

        In an index with another UUID, no record is indexed. With another fingerprint, every document is written again,
        but its old id and routing are still known, so that the old document can be deleted if one of them changed.
        """
        head = self if fingerprint == self.fingerprint else self.reopened()
        objects = head.objects if index_uuid == self.index_uuid else {}
        return msgspec.structs.replace(
            head, index=index, index_uuid=index_uuid, fingerprint=fingerprint, objects=objects
        )

    def reopened(self) -> Head:
        """Return the head with objects that are all read again, and whose documents are written again."""
        objects = {uri: msgspec.structs.replace(entry, etag="", stale=True) for uri, entry in self.objects.items()}
        return msgspec.structs.replace(self, objects=objects)

    def compared(self) -> tuple[dict[str, Entry], str]:
        """Return what a run compares its source with: two heads may differ in where predictions are stored."""
        objects = {uri: msgspec.structs.replace(entry, segments={}) for uri, entry in self.objects.items()}
        return objects, self.deletions


def in_file_order(entries: Mapping[str, Entry]) -> list[tuple[str, Entry]]:
    """Return objects sorted by file and row, so that a file that small objects share is read only once."""
    return sorted(entries.items(), key=lambda item: (item[1].rows, item[1].first))


class ScopeHead:
    """The head of one scope on object storage: only the run that claimed it last may commit."""

    def __init__(self, objects: Objects, uri: str, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        remedy = "restore its previous version, or run `opensearch-batch ledger rebuild`"
        self._document = HeadDocument(objects, uri, Head, remedy=remedy)

    def load(self) -> Head:
        """Return the head; an empty one if no run has claimed the scope."""
        return self._document.load()

    def claim(self, at_s: float, run_key: str, *, change: Callable[[Head], Head] = lambda head: head) -> Head:
        """Claim the scope for a run, and return the head with the claim.

        Args:
            at_s: the start of the run's partition interval, or else the time of its listing (epoch seconds).
            run_key: the key of the run.
            change: returns the head to claim, such as `with_unfinished_run`; raises if a head must not be claimed.
        """

        def claimed(head: Head) -> Head:
            version = next_version(at_s, after=head.claim.version)
            return msgspec.structs.replace(change(head), claim=ScopeClaim(version, run_key))

        return self._document.change(claimed)

    def write(self, head: Head, *, after: Head) -> None:
        """Replace the head, whoever has claimed it; `after` is the head that was there."""
        self._document.write(head, after=after)

    def require(self, claim: ScopeClaim) -> Head:
        """Return the head; raise ClaimLost if another run has claimed the scope since `claim`."""
        head = self.load()
        if head.claim != claim:
            raise self._lost(claim, head)
        return head

    def amend(self, claim: ScopeClaim, change: Callable[[Head], Head]) -> Head:
        """Replace the head by the result of `change` before the commit; raise ClaimLost as `commit` does."""

        def amended(head: Head) -> Head:
            if head.claim != claim:
                raise self._lost(claim, head)
            return change(head).after(head, now=self._clock())

        return self._document.change(amended)

    def commit(self, claim: ScopeClaim, change: Callable[[Head], Head]) -> Head:
        """Replace the head by the result of `change`, which may be called several times, and return it.

        A run whose commit is already stored, because its response was lost, succeeds also if another run has claimed
        the scope in the meantime.

        Raises:
            ClaimLost: another run has claimed the scope; nothing was committed.
        """

        def committed(head: Head) -> Head:
            if head.claim == claim:
                new = msgspec.structs.replace(change(head), claim=claim, committed=claim.version)
                return new.after(head, now=self._clock())
            if head.committed == claim.version:
                return head
            raise self._lost(claim, head)

        return self._document.change(committed)

    def recount(self, counted: Mapping[str, Entry], segments: Mapping[str, Mapping[str, int]]) -> None:
        """Replace the segments of the objects that were counted, unless another run has replaced an object."""

        def recounted(head: Head) -> Head:
            new = {
                uri: msgspec.structs.replace(entry, segments=dict(segments[uri]))
                for uri, entry in counted.items()
                if head.objects.get(uri) == entry
            }
            return msgspec.structs.replace(head, objects=head.objects | new)

        self._document.change(recounted)

    def collect(self, files: Iterable[str], *, now: float) -> list[str]:
        """Mark the existing files of rows that the head does not name; return those that may be deleted."""
        return self._document.change(lambda head: head.with_garbage(files, now=now)).expired(now=now)

    def _lost(self, claim: ScopeClaim, head: Head) -> ClaimLost:
        return ClaimLost(
            f"{self._document.uri}: run {head.claim.run_key} has claimed this scope after run {claim.run_key}, which "
            "committed nothing. Let the newer run finish; then clear prepare of this run, to compare its source with "
            "what the newer run wrote. What was paid is in the prediction store and is not paid again"
        )
