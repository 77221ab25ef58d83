"""Compaction of a prediction store: answers of sparse and small segments are written again, in fewer segments.

Answers that no head of a ledger needs are written to segments of their own, which are unused from then on. So they stay
for `retention_days` more, and a run that needs one of them meanwhile finds it.

Nothing that exists is changed: the old segments stay until the grace period of garbage collection has passed, so a
process that has located answers in them reads them on. Objects that name them are counted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.key_index import KeyIndex, split
from opensearch_batch.core.ledger.segments import SEGMENT_BYTES, SEGMENT_ROWS, AnswerReader, StoreFiles
from opensearch_batch.core.ledger.store_head import RewrittenJob, Segment, SegmentIndex, StoreHead, locate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from opensearch_batch.core.ledger.key_index import Keys

# More segments than this that are at most half full are written again as full ones.
SMALL_SEGMENTS = 16
# The answers that are written again at once.
BATCH_BYTES = 64 << 20

# Returns which of some keys a record of a ledger has.
AreNeeded = Callable[["Keys"], "NDArray[np.bool_]"]


class Rewrite(msgspec.Struct, frozen=True):
    """Answers of some segments that were written to others.

    `before` is the head that was read; `old` are those of its segments that `new` ones replace. No record needs the
    answers in `unneeded` ones of these.
    """

    before: StoreHead
    old: list[str]
    new: dict[str, Segment]
    unneeded: list[str]
    index: SegmentIndex | None

    def publish(self, head: StoreHead, *, now: float) -> StoreHead:
        """Return the head with the new segments, or as it is if another process has replaced or removed segments.

        A segment that is gone may have had the newer answer to a key whose older answer the new segments leave out.
        Answers that were added meanwhile take precedence over the new segments. Retention and grace period begin `now`,
        because until now a run may have found answers in the old segments.
        """
        count = len(self.before.indexes)
        if head.indexes[:count] != self.before.indexes or not head.segments.keys() >= self.before.segments.keys():
            return head
        old = [head.segments[name] for name in self.old]
        jobs = {each.job: RewrittenJob(each.submission, now) for each in sorted(old, key=_submission) if each.job}
        indexes = [*head.indexes[:count], *([self.index] if self.index else []), *head.indexes[count:]]
        marks = dict.fromkeys(self.old, now)
        segments = {name: segment for name, segment in head.segments.items() if name not in marks}
        head = msgspec.structs.replace(
            head, indexes=indexes, garbage=head.garbage | marks, rewritten=head.rewritten | jobs
        )
        unused = {name: msgspec.structs.replace(self.new[name], unused_since=now) for name in self.unneeded}
        return head.with_segments(segments | self.new | unused)


def choose(segments: Mapping[str, Segment], needed: Mapping[str, int], *, max_bytes: int = BATCH_BYTES) -> list[str]:
    """Return the segments to write again, the oldest first.

    Sparse segments have less than half of their answers alive; small ones count if they are more than `SMALL_SEGMENTS`.
    Segments that no head names are left to garbage collection.

    Args:
        segments: those of the head.
        needed: how many predictions of records are in each segment that heads name; 0 if that is not known.
        max_bytes: the bytes of the answers to write at once.
    """
    used = {name: segment for name, segment in segments.items() if needed.get(name)}
    sparse = {name for name, segment in used.items() if 2 * needed[name] < segment.rows}
    small = {name for name, segment in used.items() if is_small(segment)}
    chosen, size_bytes = list[str](), 0
    for name in sorted(sparse | (small if len(small) > SMALL_SEGMENTS else set())):
        size_bytes += used[name].bytes
        if chosen and size_bytes > max_bytes:
            break
        chosen.append(name)
    return chosen


def is_small(segment: Segment) -> bool:
    """Return whether a segment is at most half full."""
    return 2 * segment.rows <= SEGMENT_ROWS and 2 * segment.bytes <= SEGMENT_BYTES


def rewrite(files: StoreFiles, head: StoreHead, names: Sequence[str], are_needed: AreNeeded) -> Rewrite:
    """Write the answers of segments to new ones, needed answers apart from the rest; replaced answers are left out.

    Raises:
        AnswersUnusable: a file is missing or damaged.
    """
    import numpy as np

    keys = [files.segment_keys(name) for name in names]
    located = locate(files, head, np.concatenate(keys))
    numbers = {name: number for number, name in enumerate(located.segments)}
    counts = [len(each) for each in keys]
    counts_before = np.repeat(np.cumsum([0, *counts])[:-1], counts)
    rows = np.arange(len(located.keys)) - counts_before
    # Another segment may have a newer answer for a key.
    counted = (located.source == np.repeat([numbers[name] for name in names], counts)) & (located.rows == rows)
    needed = are_needed(located.keys)
    locations = [(name, row) for name, count in zip(names, counts, strict=True) for row in range(count)]

    def answers(chosen: NDArray[np.bool_]) -> Iterator[tuple[bytes, StoredAnswer]]:
        positions = np.flatnonzero(chosen)
        read = AnswerReader(files, {name: head.segments[name].bytes // head.segments[name].rows for name in names})
        return zip(split(located.keys[positions]), read.read(locations[at] for at in positions), strict=True)

    new, unneeded, new_keys = dict[str, Segment](), list[str](), list["Keys"]()
    for is_needed, chosen in ((True, counted & needed), (False, counted & ~needed)):
        for name, of_segment, size_bytes in files.write_segments(answers(chosen)):
            new[name] = Segment(len(of_segment), size_bytes, "", 0)
            unneeded += [] if is_needed else [name]
            new_keys.append(of_segment)
    index = KeyIndex.of(new_keys)
    named = SegmentIndex(files.write_key_index(index), len(index), list(new)) if new else None
    return Rewrite(head, list(names), new, unneeded, named)


def _submission(segment: Segment) -> int:
    return segment.submission
