"""The prediction store: the answer of each content key that was paid for, in immutable segments named by one head.

The head is replaced by compare-and-swap. A file is written before the head names it, and deleted after the head no
longer names it, so a process that is killed anywhere leaves unnamed files, but never a missing answer. Files have a
name of their own for each attempt: nobody ever writes a file that another process may read or delete.

A key belongs to a segment (its answer is stored), to an open shard (its job has or may have been submitted), or to
none. A run reserves keys as open shards under the same head in which it did not find them, so that of several runs
that need the same prediction one pays for it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import AnswersUnusable, RetriableError
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.key_index import Keys, read_keys, write_keys
from opensearch_batch.core.ledger.segments import AnswerReader, SegmentFiles, write_segment
from opensearch_batch.core.ledger.store_head import ABSENT, KeyIndexes, Located, OpenShard, Segment, StoreHead
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Each failed attempt to change the head is a success of another run, so the limit is never reached.
ATTEMPTS = 1_000
# Segments with fewer answers are merged when there are more than this number of them. A reader of one answer may have
# to download the whole segment, so merged segments have a limit, too.
SMALL_ROWS, SMALL_SEGMENTS, MERGED_ROWS = 65_536, 16, 131_072
DAY_S = 86_400.0
TOKEN_BYTES = 4
_REMEDY = "restore its previous version, or make it again with opensearch-batch ledger rebuild"

Cut = Callable[[Located], "Iterable[NewShard]"]
# Returns for each key whether a head of a scope names it.
Named = Callable[[Keys], "NDArray[np.bool_]"]


class NewShard(msgspec.Struct, frozen=True):
    """A shard to pay for: its job key, and the content keys of its records, one after the other."""

    job_key: str
    keys: bytes


class PredictionStore:
    """The prediction store below a folder.

    Args:
        objects: the store of the files.
        folder: the URI of the folder.
        clock: returns the time in epoch seconds.
    """

    def __init__(self, objects: Objects, folder: str, *, clock: Callable[[], float] = time.time) -> None:
        self._objects = objects
        self._files = SegmentFiles(folder.rstrip("/"))
        self._head = JsonDocument(objects, f"{folder.rstrip('/')}/head.json", StoreHead, indent=-1, remedy=_REMEDY)
        self._indexes = KeyIndexes(objects, self._files)
        self._clock = clock

    def head(self) -> StoreHead:
        """Return the current head."""
        return self._head.read() or StoreHead()

    def lookup(self, keys: bytes | Iterable[bytes]) -> Located:
        """Return where the answers of content keys are. Only `reserve` protects them from garbage collection.

        Raises:
            AnswersUnusable: a file is missing or damaged; `drop` makes its keys absent.
        """
        wanted, located = Keys.of(keys), list[Located]()

        def located_in(head: StoreHead) -> StoreHead:
            located.append(self._indexes.locate(head, wanted))
            return head

        self._update(located_in)
        return located[-1]

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
        wanted = Keys.of(keys)
        state: dict[str, tuple[Located, list[NewShard], dict[str, OpenShard]]] = {}

        def opened(head: StoreHead) -> StoreHead:
            found = self._indexes.locate(StoreHead() if force else head, wanted)
            last = state.get("last")
            if last is None or not _same_absent(last[0], found):
                shards = list(cut(found))
                last = found, shards, {shard.job_key: self._write_open_shard(shard) for shard in shards}
            state["last"] = found, last[1], last[2]
            return msgspec.structs.replace(head.used(found.used_segments()), open=head.open | last[2])

        self._update(opened)
        located, shards, _ = state["last"]
        return located, shards

    def shard_keys(self, job_key: str) -> list[bytes] | None:
        """Return the content keys of an open shard in the order of its records, None if it is not open.

        Raises:
            AnswersUnusable: the file is missing or damaged.
        """
        shard = self.head().open.get(job_key)
        return None if shard is None else read_keys(self._objects, self._files.open_shard(shard.file), job_key).split()

    def add(self, job_key: str, submission: int, answers: Iterable[tuple[bytes, StoredAnswer]]) -> str | None:
        """Store the answers of a job with their content keys, and close its shard; return the name of the segment.

        The answers count before those of earlier submissions. Keys of the shard that have no answer are absent then.
        If the answers of this submission, or of a later one, are in the store, nothing is read.

        Args:
            job_key: the key of the job.
            submission: the number of the submission whose output has the answers.
            answers: the content keys with their answers.
        """
        existing = self.head().segment_of(job_key, submission)
        rows, name = 0, self._new_name()
        if existing is None:
            rows = write_segment(self._objects, self._files, name, answers)

        def closed(head: StoreHead) -> StoreHead:
            shards = {job: shard for job, shard in head.open.items() if job != job_key}
            segments = head.segments
            if rows and head.segment_of(job_key, submission) is None:
                segments = segments | {name: Segment(rows, head.next_number(), job_key, submission)}
            return msgspec.structs.replace(head, segments=segments, open=shards)

        return self._update(closed).segment_of(job_key, submission)

    def release(self, job_key: str) -> None:
        """Close the shard of a job that returned no answer: its keys are absent then."""
        self.drop(job_key)

    def drop(self, name: str) -> None:
        """Remove a segment, or the open shard of a job key; keys that nothing else has are absent then."""
        self._update(lambda head: head.without(name))

    def reader(self) -> AnswerReader:
        """Return a reader of answers, to be closed after use."""
        return AnswerReader(self._objects, self._files)

    def compact(self, *, named: Named | None = None, retention_s: float = DAY_S) -> list[str]:
        """Merge many small segments, and rewrite sparse ones without their garbage; return the replaced segments.

        Args:
            named: has to read the heads when it is called, not before; without it, sparse segments are not rewritten.
            retention_s: how long segments have been marked as sparse, at least a day: longer than a run may last.

        Raises:
            AnswersUnusable: a segment is missing or damaged.
        """
        head = self.head()
        marked_before = self._clock() - max(retention_s, DAY_S)
        small, sparse = set[str](), set[str]()
        for name, segment in head.segments.items():
            if segment.sparse_since is None:
                if segment.rows < SMALL_ROWS:
                    small.add(name)
            elif segment.sparse_since <= marked_before:
                sparse.add(name)
        replaced = list[str]()
        if len(small) > SMALL_SEGMENTS:
            for group in _groups(head, small):
                replaced += self._merge(head, group, None) if len(group) > 1 else []
        if named is not None:
            for group in _groups(head, sparse):
                replaced += self._merge(head, group, named)
        return replaced

    def collect(self, live: Mapping[str, int], *, retention_s: float) -> list[str]:
        """Delete the files that no run can need; return their URIs.

        Args:
            live: for each segment, the number of its answers that the heads of all scopes name.
            retention_s: how long an answer stays after a run has needed it last, at least a day.
        """
        now, retention_s = self._clock(), max(retention_s, DAY_S)
        head = self._update(lambda head: head.marked(live, now=now, retention_s=retention_s))
        named = {*head.segments, *head.retired, *(shard.file for shard in head.open.values())}
        deleted = []
        for folder in self._files.folders:
            for item in list(self._objects.list(folder)):
                name = item.uri.removeprefix(folder).removesuffix(".parquet")
                if name not in named and (created := _created(name)) is not None and now - created >= retention_s:
                    self._objects.delete(item.uri)
                    deleted.append(item.uri)
        return deleted

    def _merge(self, head: StoreHead, names: Sequence[str], named: Named | None) -> list[str]:
        """Replace segments by one with the answers that count and, if `named` is given, are named; return the names.

        Nothing is replaced if one of the segments has changed since `head`: another process replaced it, or a run
        needs an answer that may not be named yet.
        """
        merged = self._new_name()
        rows = write_segment(self._objects, self._files, merged, self._counting(head, names, named))
        replaced = list[str]()

        def replace(current: StoreHead) -> StoreHead:
            replaced.clear()
            if any(current.segments.get(name) != head.segments[name] for name in names):
                return current
            replaced.extend(names)
            segments = {name: segment for name, segment in current.segments.items() if name not in replaced}
            if rows:
                segments[merged] = Segment(rows, max(head.segments[name].number for name in names))
            return msgspec.structs.replace(
                current,
                segments=segments,
                merged=current.merged | (dict.fromkeys(names, merged) if rows else {}),
                retired=current.retired | dict.fromkeys(names, self._clock()),
            )

        self._update(replace)
        return replaced

    def _counting(
        self, head: StoreHead, names: Sequence[str], named: Named | None
    ) -> Iterator[tuple[bytes, StoredAnswer]]:
        """Yield the answers that are named, of equal keys only the answer that counts."""
        segments = StoreHead(segments={name: head.segments[name] for name in names})
        with self.reader() as reader:
            for name in names:
                keys = read_keys(self._objects, self._files.segment(name), name)
                located = self._indexes.locate(segments, keys)
                kept = named(keys).tolist() if named else [True] * len(keys)
                for row, (key, answer) in enumerate(reader.keyed(name)):
                    if kept[row] and located.location(row) == (name, row):
                        yield key, answer

    def _write_open_shard(self, shard: NewShard) -> OpenShard:
        name, keys = self._new_name(), Keys.of(shard.keys)
        write_keys(self._objects, self._files.open_shard(name), keys)
        return OpenShard(name, len(keys))

    def _new_name(self) -> str:
        """Return the name of a file: when it was made, and a random part."""
        return f"{int(self._clock() * 1000):012x}-{secrets.token_hex(TOKEN_BYTES)}"

    def _update(self, change: Callable[[StoreHead], StoreHead]) -> StoreHead:
        """Replace the head by the result of `change`, which is called again when another process was faster.

        If `change` returns an equal head, nothing is written.
        """
        for _ in range(ATTEMPTS):
            found = self._head.load()
            head = StoreHead() if found is None else found.value
            try:
                new = change(head)
            except AnswersUnusable:
                if self.head() == head:
                    raise
                # Another process has replaced the file since.
                continue
            if new == head:
                return head
            new = msgspec.structs.replace(new, number=head.number + 1, token=secrets.token_hex(8))
            if self._head.swap(new, etag=None if found is None else found.etag) or self.head().token == new.token:
                return new
        raise RetriableError(f"{self._head.uri}: other runs changed this document at every attempt; run again")


def _same_absent(one: Located, other: Located) -> bool:
    """Return whether the same keys are absent."""
    import numpy as np

    return np.array_equal(one.source == ABSENT, other.source == ABSENT)


def _groups(head: StoreHead, chosen: Container[str]) -> Iterator[list[str]]:
    """Yield the chosen segments in groups, oldest first, with at most `MERGED_ROWS` answers each.

    No other segment is between those of a group, so a merged one can take their place.
    """
    group, rows = list[str](), 0
    for name in reversed(head.newest_first()):
        size = head.segments[name].rows
        if group and (name not in chosen or rows + size > MERGED_ROWS):
            yield group
            group, rows = [], 0
        if name in chosen:
            group.append(name)
            rows += size
    if group:
        yield group


def _created(name: str) -> float | None:
    """Return when a file was made, None if its name is not of `_new_name`."""
    stamp, _, token = name.partition("-")
    try:
        return int(stamp, 16) / 1000 if len(token) == 2 * TOKEN_BYTES else None
    except ValueError:
        return None
