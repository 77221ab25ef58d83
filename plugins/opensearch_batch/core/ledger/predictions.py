"""The prediction store: the answer of each content key that was paid for, in immutable segments named by one head.

The head is replaced by compare-and-swap. A file is written before the head names it, and deleted long after the head no
longer names it (`ledger/garbage.py`), so a process that is killed anywhere leaves unnamed files, but never a missing
answer.

A key belongs to a segment (its answer is stored), to an open shard (its job has or may have been submitted), or to
none. A run reserves keys as open shards under the same head in which it did not find them, so that of several runs
that need the same prediction one pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import AnswersUnusable, FatalError
from opensearch_batch.core.ledger.compaction import AreNeeded, rewrite
from opensearch_batch.core.ledger.garbage import GRACE_S, LATE_S
from opensearch_batch.core.ledger.key_index import KeyIndex, keys_of, split
from opensearch_batch.core.ledger.segments import SEGMENT_ROWS, AnswerReader, KeyedAnswers, StoreFiles
from opensearch_batch.core.ledger.store_head import (
    ABSENT,
    Located,
    OpenShard,
    Segment,
    SegmentIndex,
    StoreHead,
    index_of,
    locate,
)
from opensearch_batch.core.storage.head_document import HeadDocument
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    from opensearch_batch.core.ledger.key_index import Keys

# The newest indexes are merged when there are more than `NEW_INDEXES`, into one of at most `MERGED_KEYS` keys.
NEW_INDEXES, MERGED_KEYS = 16, 1 << 19
# The number of segments whose keys a rebuilt index has at most.
REBUILT_SEGMENTS = MERGED_KEYS // SEGMENT_ROWS
# How long a run may need an answer that it has reserved: until its jobs, and then their repair, have ended.
MIN_RETENTION_S = GRACE_S
_REMEDY = "restore its previous version, or rebuild it with opensearch-batch ledger rebuild"

Cut = Callable[[Located], "Iterable[NewShard]"]


class NewShard(msgspec.Struct, frozen=True):
    """A shard to pay for: its job key, and the content keys of its records, one after the other."""

    job_key: str
    keys: bytes


class PredictionStore:
    """The prediction store below a folder."""

    def __init__(self, objects: Objects, folder: str, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder.rstrip("/")
        self._files = StoreFiles(objects, folder, clock)
        self._head = HeadDocument(objects, f"{self.folder}/head.json", StoreHead, remedy=_REMEDY)
        self._clock = clock

    def head(self) -> StoreHead:
        """Return the current head."""
        return self._head.load()

    def lookup(self, keys: bytes | Iterable[bytes]) -> Located:
        """Return where the answers of content keys are. Only `reserve` protects them from garbage collection.

        Raises:
            AnswersUnusable: a file is missing or damaged; `drop` makes its keys absent.
        """
        wanted = keys_of(keys)
        located = Located(wanted, StoreHead())

        def located_in(head: StoreHead) -> StoreHead:
            nonlocal located
            located = locate(self._files, head, wanted)
            return head

        self._head.change(located_in)
        return located

    def reserve(
        self, keys: bytes | Iterable[bytes], cut: Cut, *, force: bool = False
    ) -> tuple[Located, list[NewShard]]:
        """Open shards for the keys that are absent; return where the keys were found, and the shards.

        Other runs find the keys of the shards from now on. If another run reserves some of the same keys first, `cut`
        is called again. The answers that were found stay for `retention_s` of `collect`.

        Args:
            keys: the content keys that a run needs.
            cut: returns the shards of the keys that are `absent`. It writes the input of their jobs, because another
                run that needs one of the keys may be the first to submit the job.
            force: treat all keys as absent.

        Raises:
            AnswersUnusable: a file is missing or damaged; `drop` makes its keys absent.
        """
        wanted = keys_of(keys)
        located, shards, opened = Located(wanted, StoreHead()), list[NewShard](), dict[str, OpenShard]()
        is_cut = False

        def reserved(head: StoreHead) -> StoreHead:
            nonlocal located, shards, opened, is_cut
            before, located = located, locate(self._files, StoreHead() if force else head, wanted)
            if not is_cut or ((before.source == ABSENT) != (located.source == ABSENT)).any():
                shards = list(cut(located))
                opened, is_cut = self._open_shards(shards), True
            return msgspec.structs.replace(head.used(located.used_segments()), open=head.open | opened)

        self._change(reserved)
        return located, shards

    def shard_keys(self, job_key: str) -> list[bytes] | None:
        """Return the content keys of an open shard in the order of its records, None if it is not open.

        Raises:
            AnswersUnusable: the file is missing or damaged.
        """
        shard = self.head().open.get(job_key)
        return None if shard is None else split(self._files.read_key_index(shard.file).rows_of(shard.number))

    def add(self, job_key: str, submission: int, answers: KeyedAnswers) -> None:
        """Store the answers of a job with their content keys, and close its shard.

        The answers replace those of earlier submissions. Keys of the shard that have no answer are absent then.
        If the answers of this submission, or of a later one, are in the store, nothing is read.
        """
        segments: dict[str, Segment] = {}
        keys: list[Keys] = []
        if not self.head().has(job_key, submission):
            for name, of_segment, size_bytes in self._files.write_segments(answers):
                segments[name] = Segment(len(of_segment), size_bytes, job_key, submission)
                keys.append(of_segment)
        indexes = [self._index(KeyIndex.of(keys), list(segments))] if segments else []

        def closed(head: StoreHead) -> StoreHead:
            head = head.without(job_key)
            if not segments or head.has(job_key, submission):
                return head
            replace = msgspec.structs.replace
            return replace(head, segments=head.segments | segments, indexes=[*head.indexes, *indexes])

        self._merge_indexes(self._change(closed))

    def drop(self, name: str) -> None:
        """Make keys absent: those of an open shard, by its job key, or of the file that an `AnswersUnusable` names."""
        self._head.change(lambda head: head.without(name))

    def reader(self) -> AnswerReader:
        """Return a reader of the answers that this store has located."""
        segments = self.head().segments
        return AnswerReader(self._files, {name: segment.bytes // segment.rows for name, segment in segments.items()})

    def register(self, ledger: str) -> StoreHead:
        """Record that heads below a folder name segments, and return the head."""
        replace = msgspec.structs.replace
        return self._head.change(lambda head: replace(head, ledgers=sorted({*head.ledgers, ledger})))

    def collect(self, live: Mapping[str, int], *, retention_s: float) -> list[str]:
        """Mark the files that no run can need, and delete those that are marked long enough; return their URIs.

        Args:
            live: how many predictions the heads of all `ledgers` count in each segment; 0 if that is not known.
            retention_s: how long an answer stays after a run has needed it last, at least `MIN_RETENTION_S`.
        """
        now, retention_s = self._clock(), max(retention_s, MIN_RETENTION_S)
        uris = self._files.uris()

        def marked(head: StoreHead) -> StoreHead:
            return head.marked(live, now=now, retention_s=retention_s).with_garbage(uris, now=now)

        gone = [uris[name] for name in self._head.change(marked).expired(now=now)]
        self._files.delete(gone)
        return gone

    def compact(self, names: Collection[str], are_needed: AreNeeded) -> bool:
        """Write the answers of segments to fewer ones; return False if another process changed the store meanwhile.

        Args:
            names: segments that the head has.
            are_needed: returns which keys the records of the ledgers have.

        Raises:
            AnswersUnusable: a segment is missing or damaged.
        """
        head = self.head()
        if not head.segments.keys() >= set(names):
            return False
        done = rewrite(self._files, head, sorted(names), are_needed)
        published = self._change(lambda head: done.publish(head, now=self._clock()))
        self._merge_indexes(published)
        segments = published.segments.keys()
        return segments.isdisjoint(names) and done.new.keys() <= segments

    def rebuild(self, is_open: Callable[[str], bool]) -> list[str]:
        """Rebuild the head from the existing segments; return the reasons why some are left out.

        If the old head is readable, shards stay open if `is_open` returns true for their job key, and segments that a
        collection may be deleting are left out. If it is not, running jobs are found by their job keys only.
        """
        try:
            old = self.head()
        except FatalError:
            old = StoreHead()
        segments, damaged = dict[str, Segment](), list[str]()
        keys: list[Keys] = []
        dying = set(old.expired(now=self._clock(), grace_s=LATE_S))
        for name, size_bytes in self._files.segments():
            if name in dying:
                continue
            try:
                keys.append(self._files.segment_keys(name))
            except AnswersUnusable as error:
                damaged.append(str(error))
            else:
                segments[name] = old.segments.get(name) or Segment(len(keys[-1]), size_bytes, "", 0)
        names, size = list(segments), REBUILT_SEGMENTS
        indexes = [
            self._index(KeyIndex.of(keys[start : start + size]), names[start : start + size])
            for start in range(0, len(names), size)
        ]
        shards = {job_key: shard for job_key, shard in old.open.items() if is_open(job_key)}
        self._head.write(StoreHead(segments=segments, indexes=indexes, open=shards, ledgers=old.ledgers), after=old)
        return damaged

    def _change(self, change: Callable[[StoreHead], StoreHead]) -> StoreHead:
        """Change the head to name new files; raise RetriableError if one was written too long ago."""
        return self._head.change(lambda head: change(head).after(head, now=self._clock()))

    def _open_shards(self, shards: list[NewShard]) -> dict[str, OpenShard]:
        """Write the keys of shards; return the shards by job key."""
        if not shards:
            return {}
        keys = [keys_of(shard.keys) for shard in shards]
        file = self._files.write_key_index(KeyIndex.of(keys))
        return {shard.job_key: OpenShard(file, at, len(keys[at])) for at, shard in enumerate(shards)}

    def _index(self, index: KeyIndex, segments: list[str]) -> SegmentIndex:
        return SegmentIndex(self._files.write_key_index(index), len(index), segments)

    def _merge_indexes(self, head: StoreHead) -> None:
        """Merge the newest indexes if there are many, unless another process has done so."""
        newest, keys = list[SegmentIndex](), 0
        for index in reversed(head.indexes):
            if keys + index.keys > MERGED_KEYS:
                break
            newest.insert(0, index)
            keys += index.keys
        if len(newest) <= NEW_INDEXES:
            return
        names = [name for index in newest for name in index.segments if name in head.segments]
        numbers = {name: number for number, name in enumerate(names)}
        try:
            merged = KeyIndex.merged([index_of(self._files, index, numbers) for index in newest])
        except AnswersUnusable:
            # The lookup that needs the lost segment names it.
            return
        new = self._index(merged, names)

        def replaced(head: StoreHead) -> StoreHead:
            at = head.indexes.index(newest[0]) if newest[0] in head.indexes else 0
            if head.indexes[at : at + len(newest)] != newest:
                return head
            indexes = [*head.indexes[:at], new, *head.indexes[at + len(newest) :]]
            return msgspec.structs.replace(head, indexes=indexes)

        self._change(replaced)
