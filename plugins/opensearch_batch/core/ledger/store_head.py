"""The head of a prediction store, and lookups of keys in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import AnswersUnusable
from opensearch_batch.core.ledger.garbage import MarkedHead
from opensearch_batch.core.ledger.key_index import GONE, KeyIndex, keys_of
from opensearch_batch.core.ledger.segments import Location, StoreFiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from opensearch_batch.core.ledger.key_index import Keys

ABSENT = GONE


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A segment: the number and the size of its answers, and the job and the submission that paid for them.

    `unused_since`: since when no head names it, and no run has reserved one of its answers (epoch seconds).
    """

    rows: int
    bytes: int
    job: str
    submission: int
    unused_since: float | None = None


class SegmentIndex(msgspec.Struct, frozen=True):
    """An index of the keys of some segments: its file, its number of keys, and the segments by their number in it."""

    file: str
    keys: int
    segments: list[str]


class OpenShard(msgspec.Struct, frozen=True):
    """A shard whose job has or may have been submitted.

    `file` is the index with its keys, `number` its number in this index, `records` its number of records.
    """

    file: str
    number: int
    records: int


class RewrittenJob(msgspec.Struct, frozen=True):
    """The last submission of a job whose answers were written to segments of several jobs, and when (epoch seconds)."""

    submission: int
    at: float


class StoreHead(MarkedHead, frozen=True, omit_defaults=True):
    """The head of a prediction store.

    `indexes` are in the order of time: if several segments have an answer for a key, that of the last one counts.
    `open` has the open shards by job key. `ledgers` are the folders of the record ledgers whose heads name segments.
    `rewritten` are the jobs whose segments were compacted lately, by job key.
    """

    segments: dict[str, Segment] = msgspec.field(default_factory=dict)
    indexes: list[SegmentIndex] = msgspec.field(default_factory=list)
    open: dict[str, OpenShard] = msgspec.field(default_factory=dict)
    ledgers: list[str] = msgspec.field(default_factory=list)
    rewritten: dict[str, RewrittenJob] = msgspec.field(default_factory=dict)

    def has(self, job_key: str, submission: int) -> bool:
        """Return whether there are answers of a job's submission, or of a later one."""
        rewritten = self.rewritten.get(job_key)
        if rewritten is not None and rewritten.submission >= submission:
            return True
        return any(each.job == job_key and each.submission >= submission for each in self.segments.values())

    def files(self) -> set[str]:
        """Return the names of all files of the store."""
        return {*self.segments, *(index.file for index in self.indexes), *(shard.file for shard in self.open.values())}

    def used(self, names: Iterable[str]) -> StoreHead:
        """Return the head with these segments in use, because a run needs answers of them."""
        segments = {name: msgspec.structs.replace(self.segments[name], unused_since=None) for name in names}
        return msgspec.structs.replace(self, segments=self.segments | segments)

    def lacks(self, counts: Mapping[str, int]) -> bool:
        """Return whether predictions are counted in a segment that the store does not have, because it was rewritten.

        Until they are counted again, it is not known in which segments they are needed.
        """
        return any(count and name not in self.segments for name, count in counts.items())

    def marked(self, live: Mapping[str, int], *, now: float, retention_s: float) -> StoreHead:
        """Return the head without the segments that were not in use for `retention_s`; others are marked as unused.

        Nothing changes while it lacks a segment of `live`.
        """
        if self.lacks(live):
            return self
        segments, unused = dict[str, Segment](), dict[str, float]()
        for name, segment in self.segments.items():
            since = None if name in live else segment.unused_since or now
            if since is None or now - since < retention_s:
                segments[name] = msgspec.structs.replace(segment, unused_since=since)
            else:
                unused[name] = since
        rewritten = {job: each for job, each in self.rewritten.items() if now - each.at < retention_s}
        head = msgspec.structs.replace(self.with_segments(segments), rewritten=rewritten)
        # An index is unused for as long as all of its segments are.
        indexes = {index.file for index in self.indexes} - {index.file for index in head.indexes}
        return msgspec.structs.replace(head, garbage=self.garbage | unused | dict.fromkeys(indexes, now - retention_s))

    def without(self, name: str) -> StoreHead:
        """Return the head without a segment, the open shard of a job key, or the open shards with keys in this file.

        The answers of a segment's job are not complete any more, so they are added again if its output is read again.
        """
        shards = {job: shard for job, shard in self.open.items() if name not in {job, shard.file}}
        segments, rewritten = dict(self.segments), self.rewritten
        if (lost := segments.pop(name, None)) is not None:
            # It may be one of several that have the answers of a rewritten job.
            rewritten = {}
            for each, segment in segments.items():
                if segment.job == lost.job:
                    segments[each] = msgspec.structs.replace(segment, job="")
        head = self.with_segments(segments)
        return msgspec.structs.replace(head, open=shards, rewritten=rewritten)

    def with_segments(self, segments: dict[str, Segment]) -> StoreHead:
        """Return the head with other segments; an index stays as long as one of its segments does."""
        indexes = [index for index in self.indexes if any(name in segments for name in index.segments)]
        return msgspec.structs.replace(self, segments=segments, indexes=indexes)


class Located:
    """Where the answers of keys are, by the position of each key.

    Attributes:
        source: an index in `segments`; `ABSENT`; or, below that, -2 minus an index in `shards`.
        rows: the row in the segment, or the position in the open shard.
        open: the open shards by job key.
    """

    def __init__(self, keys: Keys, head: StoreHead) -> None:
        import numpy as np

        self.keys = keys
        self.segments = list(head.segments)
        self.shards = sorted(head.open)
        self.open = head.open
        self.source: NDArray[np.int32] = np.full(len(keys), ABSENT, np.int32)
        self.rows: NDArray[np.uint32] = np.zeros(len(keys), np.uint32)

    def absent(self) -> NDArray[np.int64]:
        """Return the positions of the keys that are in no segment and no open shard; of equal keys, only the first."""
        import numpy as np

        positions = np.flatnonzero(self.source == ABSENT)
        _, first = np.unique(self.keys[positions], return_index=True)
        return np.sort(positions[first])

    def locations(self) -> Iterator[Location]:
        """Yield the locations of the answers that were found, in the order of their keys."""
        is_located = self.source >= 0
        names = map(self.segments.__getitem__, self.source[is_located].tolist())
        return zip(names, self.rows[is_located].tolist(), strict=True)

    def used_segments(self, start: int = 0, end: int | None = None) -> Counter[str]:
        """Return the segments that have answers of the keys between two positions, each with its number of keys."""
        source = self.source[start:end]
        return _counts(source[source >= 0], self.segments)

    def used_shards(self) -> Counter[str]:
        """Return the job keys of the open shards that have keys, each with its number of keys."""
        return _counts(-2 - self.source[self.source < ABSENT], self.shards)


def _counts(numbers: NDArray[np.int32], names: list[str]) -> Counter[str]:
    import numpy as np

    counts = np.bincount(numbers, minlength=len(names)).tolist()
    return Counter({name: count for name, count in zip(names, counts, strict=True) if count})


def locate(files: StoreFiles, head: StoreHead, keys: Keys) -> Located:
    """Return where the answers of keys are: in the newest segments that have them, else in open shards.

    Raises:
        AnswersUnusable: a file is missing or damaged.
    """
    import numpy as np

    located = Located(keys, head)
    missing = np.arange(len(keys))
    for index in _indexes(files, head, located):
        positions = index.find(keys[missing])
        hits, entries = missing[positions >= 0], index.entries[positions[positions >= 0]]
        located.source[hits], located.rows[hits] = entries["source"], entries["row"]
        missing = missing[positions < 0]
        if not len(missing):
            break
    return located


def index_of(files: StoreFiles, index: SegmentIndex, numbers: Mapping[str, int]) -> KeyIndex:
    """Return the entries of the segments that have a number, with this number.

    A lost index is computed from the segments.

    Raises:
        AnswersUnusable: a segment is missing or damaged, too.
    """
    try:
        entries = files.read_key_index(index.file)
    except AnswersUnusable:
        keys = (files.segment_keys(name) if name in numbers else keys_of(b"") for name in index.segments)
        entries = KeyIndex.of(list(keys))
    return entries.renumbered({at: numbers[name] for at, name in enumerate(index.segments) if name in numbers})


def _indexes(files: StoreFiles, head: StoreHead, located: Located) -> Iterator[KeyIndex]:
    """Yield the indexes with the numbers of `Located.source`, in the order in which their entries count."""
    numbers = {name: number for number, name in enumerate(located.segments)}
    for index in reversed(head.indexes):
        yield index_of(files, index, numbers)
    shards = dict[str, dict[int, int]]()
    for number, job_key in enumerate(located.shards):
        shard = head.open[job_key]
        shards.setdefault(shard.file, {})[shard.number] = -2 - number
    for file, of_file in shards.items():
        yield files.read_key_index(file).renumbered(of_file)
