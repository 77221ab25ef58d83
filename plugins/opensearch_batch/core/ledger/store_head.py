"""The head of a prediction store, and what a lookup finds under it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.ledger.key_index import KeyIndex, Keys, read_index, read_keys
from opensearch_batch.core.ledger.segments import Location, SegmentFiles
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABSENT = -1
# Keys of indexes that stay in memory, with 20 bytes each.
CACHED_KEYS = 4_000_000
# A segment with fewer answers in use than this share is sparse.
SPARSE = 0.5


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A segment: its number of answers, its rank, and the job and submission that paid for it (empty: several).

    If several segments have an answer for a key, that of the highest `number` counts. `sparse_since`: since when most
    of its answers are not in use, and no run has found one in a lookup (epoch seconds).
    """

    rows: int
    number: int
    job: str = ""
    submission: int = 0
    sparse_since: float | None = None


class OpenShard(msgspec.Struct, frozen=True):
    """A shard whose job has or may have been submitted: the file and the number of its keys."""

    file: str
    records: int


class StoreHead(msgspec.Struct, frozen=True):
    """The head of a prediction store.

    `token` is drawn for each write, so that a process whose write succeeded without a response finds its own head.
    `open` has the open shards by job key. `merged` maps replaced segments to the segments that have their answers now;
    `retired` is when a segment was replaced: its files stay for the runs that have found it.
    """

    number: int = 0
    token: str = ""
    segments: dict[str, Segment] = {}
    open: dict[str, OpenShard] = {}
    merged: dict[str, str] = {}
    retired: dict[str, float] = {}

    def newest_first(self) -> list[str]:
        """Return the names of the segments in the order in which their answers count."""
        return sorted(self.segments, key=lambda name: self.segments[name].number, reverse=True)

    def next_number(self) -> int:
        """Return the number of the next segment."""
        return 1 + max((segment.number for segment in self.segments.values()), default=0)

    def segment_of(self, job_key: str, submission: int) -> str | None:
        """Return the segment with the answers of a job's submission, or of a later one; None if there is none."""
        for name, segment in self.segments.items():
            if segment.job == job_key and segment.submission >= submission:
                return name
        return None

    def in_use(self, live: Mapping[str, int]) -> Counter[str]:
        """Return how many answers of each segment are in use; `live` may name segments that were replaced."""
        counts = Counter[str]()
        for name, count in live.items():
            current = name
            while current in self.merged:
                current = self.merged[current]
            counts[current] += count
        return counts

    def marked(self, live: Mapping[str, int], *, now: float, retention_s: float) -> StoreHead:
        """Return the head without garbage, and with the segments marked that have become sparse.

        Garbage is a segment of which nothing is in use, and that has been marked for `retention_s`.
        """
        counts, segments = self.in_use(live), dict[str, Segment]()
        for name, segment in self.segments.items():
            since = None
            if counts[name] < SPARSE * segment.rows:
                since = now if segment.sparse_since is None else segment.sparse_since
            if counts[name] or since is None or now - since < retention_s:
                segments[name] = msgspec.structs.replace(segment, sparse_since=since)
        retired = {name: at for name, at in self.retired.items() if now - at < retention_s}
        merged = dict[str, str]()
        for name in (*retired, *live):
            while name in self.merged and name not in merged:
                merged[name] = self.merged[name]
                name = merged[name]  # noqa: PLW2901 - follows the chain
        return msgspec.structs.replace(self, segments=segments, retired=retired, merged=merged)

    def used(self, names: Iterable[str]) -> StoreHead:
        """Return the head with these segments no longer sparse, because a run needs answers of them."""
        found = {name: self.segments[name] for name in names if self.segments[name].sparse_since is not None}
        changed = {name: msgspec.structs.replace(each, sparse_since=None) for name, each in found.items()}
        return msgspec.structs.replace(self, segments=self.segments | changed)

    def without(self, name: str) -> StoreHead:
        """Return the head without a segment, or without the open shard of this job key."""
        segments = {each: segment for each, segment in self.segments.items() if each != name}
        shards = {job: shard for job, shard in self.open.items() if job != name}
        return msgspec.structs.replace(self, segments=segments, open=shards)


class Located:
    """Where the answers of keys are, by the position of each key.

    Attributes:
        source: an index in `segments`; `ABSENT`; or, below that, -2 minus an index in `shards`.
        rows: the row in the segment, or the position in the open shard.
    """

    def __init__(self, keys: Keys, segments: list[str], shards: list[str]) -> None:
        import numpy as np

        self.keys = keys
        self.segments = segments
        self.shards = shards
        self.source: NDArray[np.int32] = np.full(len(keys), ABSENT, np.int32)
        self.rows: NDArray[np.uint32] = np.zeros(len(keys), np.uint32)

    def absent(self) -> NDArray[np.int64]:
        """Return the positions of the keys that are in no segment and no open shard; of equal keys, only the first."""
        import numpy as np

        positions = np.flatnonzero(self.source == ABSENT)
        return np.sort(positions[self.keys.take(positions).first_of_each()])

    def location(self, position: int) -> Location | None:
        """Return the location of a key's answer, None if there is none yet."""
        source = int(self.source[position])
        return (self.segments[source], int(self.rows[position])) if source >= 0 else None

    def shard(self, position: int) -> str | None:
        """Return the job key of the open shard that has a key."""
        source = int(self.source[position])
        return self.shards[-2 - source] if source < ABSENT else None

    def locations(self, positions: Iterable[int]) -> Iterator[Location]:
        """Yield the locations of answers that exist."""
        for position in positions:
            yield self.segments[self.source[position]], int(self.rows[position])

    def used_segments(self, start: int = 0, end: int | None = None) -> Counter[str]:
        """Return the segments that have answers of the keys between two positions, each with its number of keys."""
        source = self.source[start:end]
        return self._counts(source[source >= 0], self.segments)

    def used_shards(self) -> Counter[str]:
        """Return the job keys of the open shards that have keys, each with its number of keys."""
        return self._counts(-2 - self.source[self.source < ABSENT], self.shards)

    @staticmethod
    def _counts(numbers: NDArray[np.int32], names: list[str]) -> Counter[str]:
        import numpy as np

        counts = np.bincount(numbers, minlength=len(names)).tolist()
        return Counter({name: count for name, count in zip(names, counts, strict=True) if count})


class KeyIndexes:
    """Finds keys in the segments and open shards of a head; the last indexes stay in memory."""

    def __init__(self, objects: Objects, files: SegmentFiles) -> None:
        self._objects = objects
        self._files = files
        self._cached = OrderedDict[str, KeyIndex]()

    def locate(self, head: StoreHead, keys: Keys) -> Located:
        """Return where the answers of keys are.

        Raises:
            AnswersUnusable: a file is missing or damaged.
        """
        import numpy as np

        located = Located(keys, head.newest_first(), sorted(head.open))
        missing = np.arange(len(keys))
        sources = [*enumerate(located.segments), *((-2 - at, job) for at, job in enumerate(located.shards))]
        for source, name in sources:
            if not len(missing):
                break
            rows = self._index(head, name).find(keys.take(missing))
            found = missing[rows >= 0]
            located.source[found] = source
            located.rows[found] = rows[rows >= 0]
            missing = missing[rows < 0]
        return located

    def _index(self, head: StoreHead, name: str) -> KeyIndex:
        file = name if name in head.segments else head.open[name].file
        index = self._cached.pop(file, None)
        if index is None:
            files = self._files
            if name in head.segments:
                index = read_index(self._objects, files.index(name), files.segment(name), name)
            else:
                index = KeyIndex.of(read_keys(self._objects, files.open_shard(file), name))
        self._cached[file] = index
        while len(self._cached) > 1 and sum(map(len, self._cached.values())) > CACHED_KEYS:
            self._cached.popitem(last=False)
        return index
