"""The prediction store loses no answer, and lets no key be paid for twice, whoever is killed or at work at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import AnswersUnusable, FatalError
from opensearch_batch.core.ledger import predictions
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.key_index import Keys
from opensearch_batch.core.ledger.predictions import DAY_S, NewShard, PredictionStore
from opensearch_batch.core.ledger.store_head import Located, Segment, StoreHead
from opensearch_batch.core.types.identity import digest
from tests.core.memory_objects import MemoryObjects

FOLDER = "s3://w/p/predictions"
RETENTION_S = 30 * DAY_S
KEYS = [bytes([n]) * 16 for n in range(12)]
FAILS = KEYS[-1]


class Crash(BaseException):
    """The process is killed."""


class Faults(MemoryObjects):
    """Objects; before the write of number `at`, or after it, something happens once."""

    def __init__(self) -> None:
        super().__init__()
        self.at, self.after = -1, False
        self.event: Callable[[], object] = lambda: None

    @contextmanager
    def fault(self, at: int, event: Callable[[], object], *, after: bool = False) -> Iterator[None]:
        """Let an event happen at a write."""
        self.at, self.after, self.event = at, after, event
        try:
            yield
        finally:
            self.at = -1

    def _write(self, write: Callable[[], Any]) -> Any:
        self.at -= 1
        happens = self.at == -1
        if happens and not self.after:
            self.event()
        result = write()
        if happens and self.after:
            self.event()
        return result

    def write(self, uri: str, content: bytes) -> None:
        """Write an object: also for `create`, `replace` and `upload`."""
        super().write(uri, content)

    def upload(self, uri: str, content: Any) -> None:
        """Write an object from a file."""
        self._write(lambda: super(Faults, self).upload(uri, content))

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent."""
        return bool(self._write(lambda: super(Faults, self).create(uri, content)))

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag."""
        return bool(self._write(lambda: super(Faults, self).replace(uri, content, etag=etag)))

    def delete(self, uri: str) -> None:
        """Delete an object."""
        self._write(lambda: super(Faults, self).delete(uri))


class World:
    """Runs over one store, with a service that counts what is paid, and the ledgers of several scopes."""

    def __init__(self) -> None:
        self.objects = Faults()
        self.now = 1_700_000_000.0
        self.jobs: dict[str, list[bytes]] = {}
        self.paid = Counter[bytes]()
        self.ledger: dict[int, dict[str, int]] = {}
        self.named: dict[int, set[bytes]] = {}

    def store(self) -> PredictionStore:
        """A process has its own."""
        return PredictionStore(self.objects, FOLDER, clock=lambda: self.now)

    def run(self, scope: int, keys: list[bytes], size: int) -> None:
        """Predict the records of a scope, and commit."""
        self.now += 60
        store = self.store()
        located, shards = store.reserve(keys, lambda located: cut(located, size))
        used_keys = {shard.job_key: split(shard.keys) for shard in shards}
        for job_key in [*located.used_shards(), *used_keys]:
            # Another run may have added the answers meanwhile.
            shard = store.shard_keys(job_key)
            self.submit(job_key, shard if shard is not None else used_keys.get(job_key, []))
            if shard is not None:
                store.add(job_key, 1, ((key, answer_of(key)) for key in shard if key != FAILS))
        found = store.lookup(keys)
        for position, key in enumerate(keys):
            assert (found.location(position) is None) == (key == FAILS)
        self.check(store, found)
        self.ledger[scope] = dict(found.used_segments())
        self.named[scope] = set(keys)

    def submit(self, job_key: str, keys: list[bytes]) -> None:
        """Pay for a job, once."""
        if job_key not in self.jobs:
            self.jobs[job_key] = keys
            self.paid.update(keys)

    def check(self, store: PredictionStore, found: Located) -> None:
        """All answers that are located can be read, and are the right ones."""
        positions = [n for n in range(len(found.keys)) if found.location(n) is not None]
        with store.reader() as reader:
            read = list(reader.read(found.locations(positions)))
        assert read == [answer_of(found.keys.split()[position]) for position in positions]

    def compact(self) -> None:
        """Compact, with the keys that are in use."""
        self.store().compact(named=self._named, retention_s=RETENTION_S)

    def collect(self, days: int) -> None:
        """Collect garbage after some days."""
        self.now += days * DAY_S
        live = Counter[str]()
        for counts in self.ledger.values():
            live.update(counts)
        self.store().collect(live, retention_s=RETENTION_S)

    def _named(self, keys: Keys) -> Any:
        in_use = set[bytes]().union(*self.named.values())
        return np.array([key in in_use for key in keys.split()], bool)


def answer_of(key: bytes) -> StoredAnswer:
    """The service's answer."""
    return StoredAnswer(b'{"key":%d,"v":[]}' % key[0], (14,), (key[:4],))


def split(keys: bytes) -> list[bytes]:
    """Single keys."""
    return Keys.of(keys).split()


def cut(located: Located, size: int) -> list[NewShard]:
    """Cut shards of the absent keys."""
    keys = [located.keys.split()[position] for position in located.absent()]
    parts = [keys[start : start + size] for start in range(0, len(keys), size)]
    return [NewShard(digest(*(key.hex() for key in part)), b"".join(part)) for part in parts]


def add(store: PredictionStore, *keys: bytes, failed: tuple[bytes, ...] = ()) -> str:
    """Reserve keys and add their answers; return the job key."""
    _, shards = store.reserve(keys, lambda located: cut(located, 99))
    store.add(shards[0].job_key, 1, [(key, answer_of(key)) for key in keys if key not in failed])
    return shards[0].job_key


run = st.tuples(
    st.just("run"), st.integers(0, 2), st.lists(st.sampled_from(KEYS), min_size=1, max_size=8), st.integers(1, 4)
)
step = st.one_of(run, run, st.tuples(st.just("compact")), st.tuples(st.just("collect"), st.sampled_from([1, 20, 40])))
# A fault at a write of a step: the process is killed, or another one does something there.
fault = st.none() | st.tuples(st.integers(0, 9), st.booleans(), st.none() | step)


@settings(max_examples=200)
@given(steps=st.lists(st.tuples(step, fault), max_size=8))
def test_no_answer_is_lost_and_no_key_is_paid_for_twice(steps: list[tuple[Any, Any]]) -> None:
    """Whatever runs, compactions and collections do at once, and wherever they are killed."""
    world = World()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "SMALL_SEGMENTS", 2)
        for (name, *arguments), happens in steps:
            do = getattr(world, name)
            if happens is None:
                do(*arguments)
                continue
            at, after, other = happens

            def event(other: Any = other) -> None:
                if other is None:
                    raise Crash
                # A pause of weeks within a run is not guarded against.
                getattr(world, other[0])(*((1,) if other[0] == "collect" else other[1:]))

            try:
                with world.objects.fault(at, event, after=after):
                    do(*arguments)
            except Crash:
                pass
    before, committed = world.paid.copy(), set[bytes]().union(*world.named.values())
    for scope, keys in world.named.items():
        world.run(scope, sorted(keys), 4)
    # The service may fail at a key again.
    assert {key for key in committed if world.paid[key] != before[key]} <= {FAILS}
    if not any("collect" in (name, other and other[2] and other[2][0]) for (name, *_), other in steps):
        assert all(count == 1 for key, count in world.paid.items() if key != FAILS)


@pytest.mark.parametrize("after", [True, False])
@settings(max_examples=100)
@given(runs=st.lists(run, min_size=2, max_size=2), at=st.integers(0, 9))
def test_two_runs_at_once_pay_once(*, after: bool, runs: list[Any], at: int) -> None:
    """One of them does all its work in the middle of the other's."""
    world = World()
    with world.objects.fault(at, lambda: world.run(*runs[1][1:]), after=after):
        world.run(*runs[0][1:])
    world.run(*runs[1][1:])
    paid = {key: count for key, count in world.paid.items() if key != FAILS}
    assert paid == dict.fromkeys({key for _, _, keys, _ in runs for key in keys} - {FAILS}, 1)


def test_a_lookup_tells_answered_open_and_absent_keys() -> None:
    """With the segment and row, the job, or nothing."""
    world = World()
    store = world.store()
    add(store, *KEYS[:3], failed=(KEYS[1],))
    _, (shard,) = store.reserve(KEYS[3:5], lambda located: cut(located, 99))
    found = world.store().lookup([KEYS[2], KEYS[1], KEYS[4], KEYS[9], KEYS[9]])
    (segment,) = store.head().segments
    assert [found.location(n) for n in range(5)] == [(segment, 1), None, None, None, None]
    assert [found.shard(n) for n in range(5)] == [None, None, shard.job_key, None, None]
    assert found.absent().tolist() == [1, 3]
    assert (found.used_segments(), found.used_shards()) == ({segment: 1}, {shard.job_key: 1})
    assert store.shard_keys(shard.job_key) == KEYS[3:5]
    assert store.shard_keys("other") is None


def test_shards_are_cut_again_without_the_keys_that_another_run_reserved() -> None:
    """The other run reserves between lookup and write of the first; both keep what they got."""
    world = World()
    cuts = list[list[bytes]]()

    def slow_cut(located: Located) -> list[NewShard]:
        shards = cut(located, 99)
        cuts.append(split(b"".join(shard.keys for shard in shards)))
        if len(cuts) == 1:
            world.store().reserve(KEYS[2:4], lambda located: cut(located, 99))
        return shards

    located, shards = world.store().reserve(KEYS[:4], slow_cut)
    assert cuts == [KEYS[:4], KEYS[:2]]
    assert split(shards[0].keys) == KEYS[:2]
    assert located.used_shards() == {digest(*(key.hex() for key in KEYS[2:4])): 2}
    assert len(world.store().head().open) == 2


def test_shards_are_not_cut_again_for_a_run_that_needs_other_keys() -> None:
    """Thirty scopes at once write the head in turn, and their shards once."""
    world = World()
    cuts = list[int]()

    def slow_cut(located: Located) -> list[NewShard]:
        cuts.append(1)
        world.store().reserve(KEYS[4:6], lambda located: cut(located, 99))
        return cut(located, 99)

    world.store().reserve(KEYS[:4], slow_cut)
    assert cuts == [1]
    assert len(world.store().head().open) == 2


def test_nothing_is_written_if_all_answers_are_there() -> None:
    """A night without new records costs one read of the head."""
    world = World()
    add(world.store(), *KEYS[:2])
    with world.objects.fault(0, pytest.fail):
        located, shards = world.store().reserve(KEYS[:2], lambda located: cut(located, 99))
    assert shards == []
    assert len(located.absent()) == 0


def test_answers_are_added_once() -> None:
    """A second run that reads the same output finds them; the output is not read again."""
    world = World()
    job_key = add(world.store(), *KEYS[:2])
    before = world.store().head()
    assert world.store().add(job_key, 1, _never()) == next(iter(before.segments))
    assert world.store().head() == before


def test_answers_of_a_later_submission_count_before_the_earlier_ones() -> None:
    """A user had the job submitted, and paid for, again; a run that still reads the first output changes nothing."""
    world = World()
    store = world.store()
    job_key = add(store, *KEYS[:2])
    other = StoredAnswer(b'{"new":1}')
    name = store.add(job_key, 2, [(KEYS[0], other)])
    assert store.add(job_key, 2, _never()) == name
    assert store.add(job_key, 1, _never()) is not None
    with store.reader() as reader:
        found = store.lookup(KEYS[:2])
        assert list(reader.read(found.locations([0, 1]))) == [other, answer_of(KEYS[1])]


def test_a_shard_that_is_open_again_is_closed_without_a_new_submission() -> None:
    """A forced prepare was repeated after its job had been paid for and read."""
    world = World()
    store = world.store()
    job_key = add(store, *KEYS[:2])
    store.reserve(KEYS[:2], lambda located: cut(located, 99), force=True)
    store.add(job_key, 1, _never())
    assert (store.head().open, len(store.head().segments)) == ({}, 1)


def test_answers_that_another_run_adds_meanwhile_are_not_added_again() -> None:
    """Both have read the same output; the segment that the head names first stays."""
    world = World()
    _, (shard,) = world.store().reserve(KEYS[:2], lambda located: cut(located, 99))
    keyed = [(key, answer_of(key)) for key in KEYS[:2]]
    with world.objects.fault(0, lambda: world.store().add(shard.job_key, 1, keyed)):
        name = world.store().add(shard.job_key, 1, keyed)
    assert list(world.store().head().segments) == [name]


def _never() -> Iterator[tuple[bytes, StoredAnswer]]:
    pytest.fail("the answers were read")
    yield KEYS[0], answer_of(KEYS[0])


def test_a_job_without_any_answer_frees_its_keys() -> None:
    """By adding nothing, or by its release."""
    world = World()
    store = world.store()
    job_key = add(store, FAILS, failed=(FAILS,))
    assert store.head().segments == {}
    _, (shard,) = store.reserve(KEYS[:1], lambda located: cut(located, 99))
    store.release(shard.job_key)
    assert store.lookup([FAILS, KEYS[0]]).absent().tolist() == [0, 1]
    assert job_key not in store.head().open


def test_a_forced_answer_counts_before_the_one_that_it_replaces() -> None:
    """The run pays again, and later lookups find the new answer; compaction keeps only that."""
    world = World()
    store = world.store()
    job_key = add(store, *KEYS[:2])
    located, shards = store.reserve(KEYS[:1], lambda located: cut(located, 99), force=True)
    assert located.absent().tolist() == [0]
    other = StoredAnswer(b'{"new":1}')
    store.add(shards[0].job_key, 1, [(KEYS[0], other)])
    assert shards[0].job_key != job_key
    for _ in range(2):
        found = store.lookup(KEYS[:2])
        with store.reader() as reader:
            assert list(reader.read(found.locations([0, 1]))) == [other, answer_of(KEYS[1])]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(predictions, "SMALL_SEGMENTS", 1)
            store.compact()
    (segment,) = store.head().segments.values()
    assert segment.rows == 2


def test_a_lost_response_of_the_head_is_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write succeeded, the store says that it did not."""
    world = World()
    add(world.store(), KEYS[5])
    plain = world.objects.replace

    def lost(uri: str, content: bytes, *, etag: str) -> bool:
        plain(uri, content, etag=etag)
        return False

    monkeypatch.setattr(world.objects, "replace", lost)
    cuts = list[int]()
    world.store().reserve(KEYS[:2], lambda located: cuts.append(1) or cut(located, 99))  # type: ignore[func-returns-value]
    assert cuts == [1]
    assert world.store().head().number == 3


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_exactly_the_answers_of_a_lost_segment_are_absent(damage: str) -> None:
    """The error names it; after `drop` its keys are offered again, and the others are not."""
    world = World()
    store = world.store()
    add(store, *KEYS[:2])
    add(store, *KEYS[2:4])
    lost = store.head().newest_first()[0]
    uri = f"{FOLDER}/segments/{lost}.parquet"
    if damage == "missing":
        world.objects.delete(uri)
    else:
        world.objects.write(uri, b"PAR1")
    found = world.store().lookup(KEYS[:4])
    with pytest.raises(AnswersUnusable, match=lost) as error, store.reader() as reader:
        list(reader.read(found.locations(range(4))))
    store.drop(error.value.name)
    found = world.store().lookup(KEYS[:4])
    assert found.absent().tolist() == [2, 3]
    world.check(store, found)


def test_a_lost_open_shard_is_named() -> None:
    """Its keys are absent after a drop."""
    world = World()
    _, (shard,) = world.store().reserve(KEYS[:2], lambda located: cut(located, 99))
    for item in list(world.objects.list(f"{FOLDER}/open/")):
        world.objects.delete(item.uri)
    with pytest.raises(AnswersUnusable, match="missing") as error:
        world.store().lookup(KEYS[:2])
    assert error.value.name == shard.job_key
    world.store().drop(error.value.name)
    assert world.store().lookup(KEYS[:2]).absent().tolist() == [0, 1]


def test_a_damaged_head_is_not_an_empty_store() -> None:
    """All would be paid for again."""
    world = World()
    world.objects.write(f"{FOLDER}/head.json", b"{")
    with pytest.raises(FatalError, match="ledger rebuild"):
        world.store().lookup(KEYS[:1])


def test_many_small_segments_become_one() -> None:
    """Names in heads of scopes still count for it, and runs that have found the old ones can read them."""
    world = World()
    for n in range(17):
        add(world.store(), bytes([n, 1]) * 8)
    keys = [bytes([n, 1]) * 8 for n in range(17)]
    store = world.store()
    found, before = store.lookup(keys), store.head()
    assert sorted(store.compact()) == sorted(before.segments)
    ((name, segment),) = store.head().segments.items()
    assert segment.rows == 17
    assert store.head().in_use(found.used_segments()) == {name: 17}
    world.check(store, found)
    world.check(store, store.lookup(keys))
    assert store.compact() == []
    world.now += RETENTION_S
    deleted = store.collect(found.used_segments(), retention_s=RETENTION_S)
    assert len(deleted) == 17 * 3
    assert store.head().in_use(found.used_segments()) == {name: 17}
    world.check(store, store.lookup(keys))
    # No head names the old segments any more.
    store.collect({name: 17}, retention_s=RETENTION_S)
    assert store.head().merged == {}


def test_a_segment_that_was_replaced_stays_for_the_runs_that_have_found_it() -> None:
    """However old it is."""
    world = World()
    keys = [bytes([n, 1]) * 8 for n in range(17)]
    for key in keys:
        add(world.store(), key)
    world.now += 2 * RETENTION_S
    store = world.store()
    found = store.lookup(keys)
    assert len(store.compact()) == 17
    store.collect(found.used_segments(), retention_s=RETENTION_S)
    world.check(store, found)


def test_an_older_answer_does_not_get_before_a_newer_one_by_a_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments are not merged over one that stays."""
    monkeypatch.setattr(predictions, "SMALL_ROWS", 3)
    monkeypatch.setattr(predictions, "SMALL_SEGMENTS", 2)
    world = World()
    store = world.store()
    add(store, KEYS[0])
    _, (shard,) = store.reserve(KEYS[:4], lambda located: cut(located, 99), force=True)
    newer = StoredAnswer(b'{"new":1}')
    store.add(shard.job_key, 1, [(KEYS[0], newer), *((key, answer_of(key)) for key in KEYS[1:4])])
    add(store, KEYS[5])
    add(store, KEYS[6])
    assert len(store.compact()) == 2
    with store.reader() as reader:
        assert list(reader.read(store.lookup(KEYS[:1]).locations([0]))) == [newer]


def test_garbage_is_deleted_after_its_retention() -> None:
    """Marked first; a run that needs an answer meanwhile keeps it."""
    world = World()
    store = world.store()
    add(store, *KEYS[:2])
    (name,) = store.head().segments
    for needed in (True, False):
        store.collect({}, retention_s=RETENTION_S)
        world.now += RETENTION_S - 1
        store.collect({}, retention_s=RETENTION_S)
        assert name in store.head().segments
        if needed:
            located, shards = world.store().reserve(KEYS[1:2], lambda located: cut(located, 99))
            world.now += 1
            store.collect({}, retention_s=RETENTION_S)
            world.check(store, located)
            assert shards == []
            store.collect({name: 1}, retention_s=RETENTION_S)
    world.now += 1
    store.collect({}, retention_s=RETENTION_S)
    assert store.head().segments == {}
    assert [item.uri for item in world.objects.list(FOLDER)] == [f"{FOLDER}/head.json"]


def test_a_sparse_segment_is_rewritten_without_its_garbage() -> None:
    """After its retention, unless a run needs one of its answers meanwhile."""
    world = World()
    store = world.store()
    add(store, *KEYS[:5])
    (name,) = store.head().segments

    def named(keys: Keys) -> Any:
        return np.array([key == KEYS[3] for key in keys.split()])

    store.collect({name: 2}, retention_s=RETENTION_S)
    assert store.compact(named=named, retention_s=RETENTION_S) == []
    world.now += RETENTION_S
    assert store.compact(retention_s=RETENTION_S) == []

    def needs_another(keys: Keys) -> Any:
        world.store().reserve(KEYS[:1], lambda located: cut(located, 99))
        return named(keys)

    assert store.compact(named=needs_another, retention_s=RETENTION_S) == []
    store.collect({name: 2}, retention_s=RETENTION_S)
    world.now += RETENTION_S
    assert store.compact(named=named, retention_s=RETENTION_S) == [name]
    assert store.lookup(KEYS[:5]).absent().tolist() == [0, 1, 2, 4]
    world.check(store, store.lookup(KEYS[:5]))


def test_a_compaction_gives_up_a_segment_that_changed() -> None:
    """Another compaction replaced it."""
    world = World()
    for n in range(17):
        add(world.store(), bytes([n, 1]) * 8)
    with world.objects.fault(0, lambda: world.store().compact()):
        assert world.store().compact() == []
    assert len(world.store().head().segments) == 1
    world.check(world.store(), world.store().lookup([bytes([n, 1]) * 8 for n in range(17)]))


def test_a_file_that_is_deleted_during_a_lookup_is_looked_up_again() -> None:
    """The head that was read first named it."""
    world = World()
    add(world.store(), KEYS[0])
    store = world.store()
    store.collect({}, retention_s=RETENTION_S)
    world.now += RETENTION_S
    plain, opened = world.objects.open, list[str]()

    def late(uri: str, **more: Any) -> Any:
        if not opened:
            opened.append(uri)
            store.collect({}, retention_s=RETENTION_S)
        return plain(uri, **more)

    world.objects.open = late  # type: ignore[method-assign]
    assert world.store().lookup(KEYS[:1]).absent().tolist() == [0]
    assert opened


def test_merged_names_are_followed() -> None:
    """Over several compactions, and kept as long as a head or a run may know one of them."""
    head = StoreHead(segments={"c": Segment(5, 1)}, merged={"a": "b", "b": "c", "x": "y"}, retired={"b": 50.0})
    assert head.in_use({"a": 1, "b": 1, "c": 1, "z": 1}) == {"c": 3, "z": 1}
    assert head.marked({"a": 5}, now=60.0, retention_s=20.0).merged == {"a": "b", "b": "c"}
    assert head.marked({"c": 5}, now=60.0, retention_s=20.0).merged == {"b": "c"}
    assert head.marked({"c": 5}, now=70.0, retention_s=20.0).merged == {}
