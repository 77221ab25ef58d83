"""Which segments are written again, and that every answer is found afterwards where a run expects it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.ledger import compaction, predictions, segments
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.compaction import SMALL_SEGMENTS, AreNeeded, Rewrite, choose, is_small
from opensearch_batch.core.ledger.garbage import GRACE_S
from opensearch_batch.core.ledger.key_index import split
from opensearch_batch.core.ledger.predictions import NewShard, PredictionStore
from opensearch_batch.core.ledger.segments import SEGMENT_BYTES, SEGMENT_ROWS
from opensearch_batch.core.ledger.store_head import ABSENT, RewrittenJob, Segment, SegmentIndex, StoreHead
from tests.core.memory_objects import MemoryObjects

KEYS = [bytes([n, 7]) * 8 for n in range(10)]
FULL = Segment(SEGMENT_ROWS, SEGMENT_BYTES, "j", 1)


def small(count: int, rows: int = 10) -> dict[str, Segment]:
    """Small segments, all of whose answers are needed."""
    return {f"{n:03d}": Segment(rows, 100, "j", 1) for n in range(count)}


def test_sparse_segments_have_less_than_half_of_their_answers_alive() -> None:
    """Not those that nobody needs, which garbage collection deletes, and not if the number is not known."""
    stored = dict.fromkeys("abcdef", FULL)
    half = SEGMENT_ROWS // 2
    assert choose(stored, {"a": half - 1, "b": half, "c": half + 1, "d": 0, "x": 1}) == ["a"]


def test_more_small_segments_than_the_limit_are_written_again() -> None:
    """All of them at once, so that there are few again."""
    most = small(SMALL_SEGMENTS)
    assert choose(most, dict.fromkeys(most, 10)) == []
    more = small(SMALL_SEGMENTS + 1)
    assert choose({**more, "full": FULL}, {**dict.fromkeys(more, 10), "full": SEGMENT_ROWS}) == list(more)
    # One of them is of no use to anybody.
    assert choose(more, dict.fromkeys(list(more)[1:], 10)) == []


def test_a_small_segment_is_at_most_half_full() -> None:
    """By rows, and by bytes: larger answers fill a segment with fewer rows."""
    rows, size = SEGMENT_ROWS // 2, SEGMENT_BYTES // 2
    assert is_small(Segment(rows, size, "j", 1))
    assert not is_small(Segment(rows + 1, size, "j", 1))
    assert not is_small(Segment(rows, size + 1, "j", 1))


def test_the_oldest_segments_are_written_first_and_a_batch_has_a_limit() -> None:
    """At least one, however large it is."""
    stored = {name: Segment(100, 40, "j", 1) for name in "cab"}
    needed = dict.fromkeys(stored, 1)
    assert choose(stored, needed, max_bytes=80) == ["a", "b"]
    assert choose(stored, needed, max_bytes=79) == ["a"]
    assert choose(stored, needed, max_bytes=1) == ["a"]


def index(file: str, *names: str) -> SegmentIndex:
    """An index of segments."""
    return SegmentIndex(file, 1, list(names))


def head_of(**members: object) -> StoreHead:
    """A head with the segments a, b and c, in two indexes."""
    stored = {"a": Segment(1, 1, "j", 2), "b": Segment(1, 1, "j", 3), "c": Segment(1, 1, "", 0)}
    usual = {"segments": stored, "indexes": [index("1", "a", "b"), index("2", "c")]}
    return StoreHead(**{**usual, **members})  # type: ignore[arg-type]


NEW = {"n": Segment(3, 3, "", 0), "u": Segment(1, 1, "", 0)}
REWRITE = Rewrite(head_of(), ["a", "b", "c"], NEW, ["u"], index("3", "n", "u"))


def test_new_segments_take_the_place_of_the_old_ones() -> None:
    """The head knows the last submission of their jobs, and since when files are garbage and answers not needed."""
    head = REWRITE.publish(head_of(), now=5.0)
    assert {name: segment.unused_since for name, segment in head.segments.items()} == {"n": None, "u": 5.0}
    assert head.indexes == [index("3", "n", "u")]
    assert head.garbage == {"a": 5.0, "b": 5.0, "c": 5.0}
    assert head.rewritten == {"j": RewrittenJob(3, 5.0)}
    assert (head.has("j", 3), head.has("j", 4), head.has("other", 1)) == (True, False, False)


def test_answers_that_were_added_meanwhile_count_first() -> None:
    """Their index stays behind the new one; an index stays as long as one of its segments does."""
    meanwhile = head_of(segments={**head_of().segments, "d": FULL}, indexes=[*head_of().indexes, index("4", "d")])
    part = msgspec.structs.replace(REWRITE, old=["a", "c"])
    head = part.publish(meanwhile, now=5.0)
    assert head.indexes == [index("1", "a", "b"), index("3", "n", "u"), index("4", "d")]
    assert list(head.segments) == ["b", "d", "n", "u"]


@pytest.mark.parametrize(
    "other",
    [
        head_of(indexes=[index("9", "a", "b", "c")]),
        head_of(indexes=[index("2", "c")]),
        head_of(segments={"a": FULL, "b": FULL}),
    ],
)
def test_nothing_is_published_if_old_segments_changed(other: StoreHead) -> None:
    """Another process has merged their indexes, rewritten them, or removed one, which need not be an old one."""
    assert REWRITE.publish(other, now=5.0) is other
    assert msgspec.structs.replace(REWRITE, old=["a"]).publish(other, now=5.0) is other


def test_a_lost_segment_makes_rewritten_jobs_incomplete() -> None:
    """Their answers are added again if the output is read again."""
    head = REWRITE.publish(head_of(), now=5.0)
    assert not head.without("n").has("j", 1)
    assert head.without("job of a shard").has("j", 3)


def test_rewritten_jobs_are_known_as_long_as_a_run_may_read_their_output() -> None:
    """Then they are forgotten, so the head does not grow."""
    head = REWRITE.publish(head_of(), now=5.0)
    assert head.marked({"n": 1}, now=4.0 + GRACE_S, retention_s=GRACE_S).has("j", 3)
    assert head.marked({"n": 1}, now=5.0 + GRACE_S, retention_s=GRACE_S).rewritten == {}


def test_nothing_is_marked_while_a_head_names_an_unknown_segment() -> None:
    """The objects that name it are not counted again yet; those without a count never are."""
    head = head_of()
    assert head.marked({"a": 1, "gone": 2}, now=5.0, retention_s=1.0) is head
    marked = head.marked({"a": 1, "c": 0, "gone": 0}, now=5.0, retention_s=1.0)
    assert {name: segment.unused_since for name, segment in marked.segments.items()} == {"a": None, "b": 5.0, "c": None}


class Store:
    """A prediction store; the n-th answer of a key is `n`."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.store = PredictionStore(MemoryObjects(), "s3://w/predictions", clock=self._clock)
        self.expected: dict[bytes, StoredAnswer] = {}
        self.jobs = 0

    def _clock(self) -> float:
        self.now += 1
        return self.now

    def add(self, keys: Sequence[bytes]) -> None:
        """Pay for keys, again if they are there."""
        self.jobs += 1
        job = f"job{self.jobs}"
        self.store.reserve(keys, lambda _: [NewShard(job, b"".join(keys))], force=True)
        answers = {key: StoredAnswer(b'{"n":%d}' % self.jobs) for key in keys}
        self.store.add(job, 1, answers.items())
        self.expected |= answers

    def check(self) -> None:
        """Every key has its last answer."""
        located = self.store.lookup(list(self.expected))
        assert (located.source != ABSENT).all()
        with self.store.reader() as reader:
            assert list(reader.read(located.locations())) == list(self.expected.values())


def needs(*needed: bytes) -> AreNeeded:
    """Records have these keys."""
    import numpy as np

    return lambda keys: np.array([key in needed for key in split(keys)], bool)


some_keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=5, unique=True)


@given(
    adds=st.lists(some_keys, min_size=1, max_size=6),
    later=st.lists(some_keys, max_size=3),
    needed=st.sets(st.sampled_from(KEYS)),
    data=st.data(),
)
def test_each_key_has_its_last_answer_after_any_compactions(
    adds: list[list[bytes]], later: list[list[bytes]], needed: set[bytes], data: st.DataObject
) -> None:
    """Also if a key was paid for several times, whichever of its segments are written again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "SEGMENT_ROWS", data.draw(st.integers(1, 4)))
        patch.setattr(predictions, "NEW_INDEXES", data.draw(st.integers(1, 4)))
        world = Store()
        for keys in adds:
            world.add(keys)
        for more in ([], *([each] for each in later)):
            for keys in more:
                world.add(keys)
            names = data.draw(st.lists(st.sampled_from(sorted(world.store.head().segments)), min_size=1, unique=True))
            assert world.store.compact(names, needs(*needed))
            assert world.store.head().segments.keys().isdisjoint(names)
            world.check()


def test_needed_and_other_answers_are_written_apart() -> None:
    """Answers that a later one replaced are not written at all."""
    world = Store()
    world.add(KEYS[:4])
    world.add(KEYS[3:5])
    first = world.store.head()
    assert world.store.compact(list(first.segments), needs(*KEYS[1:4]))
    found = [(each.rows, each.unused_since is None, each.job) for each in world.store.head().segments.values()]
    assert found == [(3, True, ""), (2, False, "")]
    world.check()


def test_segments_without_an_answer_that_counts_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of theirs were paid for again."""
    monkeypatch.setattr(compaction, "SMALL_SEGMENTS", 0)
    world = Store()
    world.add(KEYS[:2])
    world.add(KEYS[:2])
    old, last = world.store.head().segments
    assert world.store.compact([old], needs(*KEYS))
    assert list(world.store.head().segments) == [last]
    world.check()


def test_a_compaction_gives_up_if_another_process_was_faster() -> None:
    """Its files are garbage, and nothing is lost."""
    world = Store()
    world.add(KEYS[:2])
    world.add(KEYS[2:4])
    names = list(world.store.head().segments)

    def slow(keys: object) -> object:
        assert world.store.compact(names, needs(*KEYS))
        return needs(*KEYS)(keys)  # type: ignore[arg-type]

    assert not world.store.compact(names, slow)  # type: ignore[arg-type]
    assert len(world.store.head().segments) == 1
    assert not world.store.compact(names, needs(*KEYS))
    world.check()


def test_the_answers_of_a_rewritten_job_are_not_added_again() -> None:
    """A repeated ingest finds them, and does not read the output."""
    world = Store()
    world.add(KEYS[:2])
    world.store.compact(list(world.store.head().segments), needs(*KEYS))
    before = world.store.head()
    world.store.add("job1", 1, iter(()))
    assert world.store.head() == before


def test_an_unneeded_answer_that_a_run_reserves_stays() -> None:
    """The run finds it in the new segment, and its retention begins again."""
    world = Store()
    world.add(KEYS[:2])
    world.store.compact(list(world.store.head().segments), needs(KEYS[0]))
    needed, _ = world.store.head().segments
    world.now += GRACE_S - 60
    located, shards = world.store.reserve(KEYS[1:2], lambda _: [])
    world.now += 60
    for _ in range(2):
        world.store.collect({needed: 1}, retention_s=GRACE_S)
    assert shards == []
    with world.store.reader() as reader:
        assert list(reader.read(located.locations())) == [world.expected[KEYS[1]]]
    world.now += GRACE_S
    world.store.collect({needed: 1}, retention_s=GRACE_S)
    assert list(world.store.head().segments) == [needed]
