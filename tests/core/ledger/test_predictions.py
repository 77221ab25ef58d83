"""The prediction store loses no answer, and lets no key be paid for twice, whoever is killed or at work at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import AnswersUnusable, FatalError
from opensearch_batch.core.ledger import predictions
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.garbage import GRACE_S
from opensearch_batch.core.ledger.key_index import keys_of
from opensearch_batch.core.ledger.key_index import split as split_keys
from opensearch_batch.core.ledger.predictions import NewShard, PredictionStore
from opensearch_batch.core.ledger.store_head import ABSENT, Located
from opensearch_batch.core.types.identity import digest
from tests.core.memory_objects import MemoryObjects
from tests.examples import examples

FOLDER = "s3://w/p/predictions"
DAY_S = 86_400.0
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
            assert (found.source[position] == ABSENT) == (key == FAILS)
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
        keys = [key for key, source in zip(split_keys(found.keys), found.source, strict=True) if source >= 0]
        assert read(store, found) == [answer_of(key) for key in keys]

    def collect(self, days: int) -> None:
        """Collect garbage after some days."""
        self.now += days * DAY_S
        live = {name: 1 for segments in self.ledger.values() for name in segments}
        self.store().collect(live, retention_s=RETENTION_S)


def answer_of(key: bytes) -> StoredAnswer:
    """The service's answer."""
    return StoredAnswer(b'{"key":%d,"v":[]}' % key[0], (14,), (key[:4],))


def read(store: PredictionStore, found: Located) -> list[StoredAnswer]:
    """The answers that are located."""
    with store.reader() as reader:
        return list(reader.read(found.locations()))


def split(keys: bytes) -> list[bytes]:
    """Single keys."""
    return split_keys(keys_of(keys))


def cut(located: Located, size: int) -> list[NewShard]:
    """Cut shards of the absent keys."""
    keys = split_keys(located.keys[located.absent()])
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
step = st.one_of(run, run, st.tuples(st.just("collect"), st.sampled_from([1, 20, 40])))
# A fault at a write of a step: the process is killed, or another one does something there.
fault = st.none() | st.tuples(st.integers(0, 9), st.booleans(), st.none() | step)


@settings(max_examples=examples(120))
@given(steps=st.lists(st.tuples(step, fault), max_size=8))
def test_no_answer_is_lost_and_no_key_is_paid_for_twice(steps: list[tuple[Any, Any]]) -> None:
    """Whatever runs and collections do at once, and wherever they are killed."""
    world = World()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "NEW_INDEXES", 2)
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
@settings(max_examples=examples(60))
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
    assert list(found.locations()) == [(segment, 1)]
    assert (found.source.tolist(), found.shards) == ([0, ABSENT, -2, ABSENT, ABSENT], [shard.job_key])
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
    world.store().add(job_key, 1, _never())
    assert world.store().head() == before


def test_answers_of_a_later_submission_count_before_the_earlier_ones() -> None:
    """A user had the job submitted, and paid for, again; a run that still reads the first output changes nothing."""
    world = World()
    store = world.store()
    job_key = add(store, *KEYS[:2])
    other = StoredAnswer(b'{"new":1}')
    store.add(job_key, 2, [(KEYS[0], other)])
    store.add(job_key, 2, _never())
    store.add(job_key, 1, _never())
    assert read(store, store.lookup(KEYS[:2])) == [other, answer_of(KEYS[1])]


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
        world.store().add(shard.job_key, 1, keyed)
    assert len(world.store().head().segments) == 1


def _never() -> Iterator[tuple[bytes, StoredAnswer]]:
    pytest.fail("the answers were read")
    yield KEYS[0], answer_of(KEYS[0])


def test_a_job_without_any_answer_frees_its_keys() -> None:
    """By adding nothing, or by dropping its shard."""
    world = World()
    store = world.store()
    job_key = add(store, FAILS, failed=(FAILS,))
    assert store.head().segments == {}
    _, (shard,) = store.reserve(KEYS[:1], lambda located: cut(located, 99))
    store.drop(shard.job_key)
    assert store.lookup([FAILS, KEYS[0]]).absent().tolist() == [0, 1]
    assert job_key not in store.head().open


def test_a_forced_answer_counts_before_the_one_that_it_replaces() -> None:
    """The run pays again, and later lookups find the new answer, also in a merged index."""
    world = World()
    store = world.store()
    job_key = add(store, *KEYS[:2])
    located, shards = store.reserve(KEYS[:1], lambda located: cut(located, 99), force=True)
    assert located.absent().tolist() == [0]
    other = StoredAnswer(b'{"new":1}')
    store.add(shards[0].job_key, 1, [(KEYS[0], other)])
    assert shards[0].job_key != job_key
    for new in KEYS[5:7]:
        assert read(store, store.lookup(KEYS[:2])) == [other, answer_of(KEYS[1])]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(predictions, "NEW_INDEXES", 1)
            add(store, new)
    assert len(store.head().indexes) < len(store.head().segments)


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
    lost = list(store.head().segments)[1]
    uri = f"{FOLDER}/segments/{lost}.parquet"
    if damage == "missing":
        world.objects.delete(uri)
    else:
        world.objects.write(uri, b"PAR1")
    found = world.store().lookup(KEYS[:4])
    with pytest.raises(AnswersUnusable, match=lost) as error:
        read(store, found)
    store.drop(error.value.name)
    found = world.store().lookup(KEYS[:4])
    assert found.absent().tolist() == [2, 3]
    world.check(store, found)


def test_a_lost_open_shard_is_named() -> None:
    """Its keys are absent after a drop."""
    world = World()
    _, (shard,) = world.store().reserve(KEYS[:2], lambda located: cut(located, 99))
    uris = [item.uri for item in world.objects.list(f"{FOLDER}/keys/")]
    add(world.store(), KEYS[2])
    for uri in uris:
        world.objects.delete(uri)
    with pytest.raises(AnswersUnusable, match="missing"):
        world.store().shard_keys(shard.job_key)
    with pytest.raises(AnswersUnusable, match="missing") as error:
        world.store().lookup(KEYS[:3])
    world.store().drop(error.value.name)
    assert world.store().lookup(KEYS[:3]).absent().tolist() == [0, 1]


def test_one_of_several_open_shards_is_dropped() -> None:
    """The others, whose keys are in the same file, stay open."""
    world = World()
    _, (one, two) = world.store().reserve(KEYS[:4], lambda located: cut(located, 2))
    world.store().drop(one.job_key)
    assert list(world.store().head().open) == [two.job_key]
    assert world.store().lookup(KEYS[:4]).absent().tolist() == [0, 1]


def test_a_damaged_head_is_not_an_empty_store() -> None:
    """All would be paid for again."""
    world = World()
    world.objects.write(f"{FOLDER}/head.json", b"{")
    with pytest.raises(FatalError, match="ledger rebuild"):
        world.store().lookup(KEYS[:1])


def test_many_indexes_become_one() -> None:
    """A lookup reads few files, whatever the number of segments; the answers stay where they are."""
    world = World()
    keys = [bytes([n, 1]) * 8 for n in range(40)]
    for key in keys:
        add(world.store(), key)
    store = world.store()
    head = store.head()
    assert (len(head.segments), len(head.indexes)) == (40, 40 - 2 * predictions.NEW_INDEXES)
    found = store.lookup(keys)
    world.check(store, found)
    assert found.used_segments() == dict.fromkeys(head.segments, 1)
    # A reader may have read a head that names the former indexes.
    assert store.collect(dict.fromkeys(head.segments, 1), retention_s=RETENTION_S) == []
    world.now += GRACE_S - 1
    assert store.collect(dict.fromkeys(head.segments, 1), retention_s=RETENTION_S) == []
    world.now += 1
    assert store.collect(dict.fromkeys(head.segments, 1), retention_s=RETENTION_S)
    left = [item.uri for item in world.objects.list(f"{FOLDER}/keys/")]
    assert left == sorted(f"{FOLDER}/keys/{index.file}.npy" for index in head.indexes)
    world.check(store, world.store().lookup(keys))


def test_merged_indexes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is read into memory as a whole."""
    monkeypatch.setattr(predictions, "NEW_INDEXES", 2)
    monkeypatch.setattr(predictions, "MERGED_KEYS", 5)
    world = World()
    keys = [bytes([n, 1]) * 8 for n in range(23)]
    for key in keys:
        add(world.store(), key)
    head = world.store().head()
    assert {index.keys for index in head.indexes[:-2]} <= {3, 4, 5}
    assert [name for index in head.indexes for name in index.segments] == list(head.segments)
    assert not len(world.store().lookup(keys).absent())


def test_segments_that_are_gone_leave_a_merged_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older answers of their keys are found again."""
    monkeypatch.setattr(predictions, "NEW_INDEXES", 1)
    world = World()
    store = world.store()
    add(store, KEYS[0])
    _, (shard,) = store.reserve(KEYS[:2], lambda located: cut(located, 99), force=True)
    store.add(shard.job_key, 1, [(key, StoredAnswer(b"{}")) for key in KEYS[:2]])
    assert len(store.head().indexes) == 1
    store.drop(list(store.head().segments)[1])
    found = store.lookup(KEYS[:2])
    assert found.absent().tolist() == [1]
    world.check(store, found)
    add(store, KEYS[2])
    assert store.head().indexes[0].segments == list(store.head().segments)


def test_a_lost_index_is_computed_from_its_segments() -> None:
    """Of segments that are lost as well, the error names one."""
    world = World()
    for key in KEYS[:3]:
        add(world.store(), key)
    for item in list(world.objects.list(f"{FOLDER}/keys/")):
        world.objects.write(item.uri, b"damaged")
    store = world.store()
    world.check(store, store.lookup(KEYS[:3]))
    name = list(store.head().segments)[1]
    world.objects.delete(f"{FOLDER}/segments/{name}.parquet")
    with pytest.raises(AnswersUnusable, match=rf"segments/{name}\.parquet: missing; its answers are paid") as error:
        world.store().lookup(KEYS[:3])
    assert error.value.name == name
    store.drop(name)
    assert world.store().lookup(KEYS[:3]).absent().tolist() == [1]


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
    gone = store.collect({}, retention_s=RETENTION_S)
    assert {uri.rpartition("/")[0] for uri in gone} >= {f"{FOLDER}/segments", f"{FOLDER}/keys"}
    assert store.head().segments == {}
    assert store.head().indexes == []
    assert [item.uri for item in world.objects.list(FOLDER)] == [f"{FOLDER}/head.json"]


def test_a_merge_gives_up_if_another_process_has_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read the same indexes."""
    monkeypatch.setattr(predictions, "NEW_INDEXES", 3)
    world = World()
    for key in KEYS[:3]:
        add(world.store(), key)
    # Writes of an add: segment, index, head; the merge follows.
    _, (shard,) = world.store().reserve(KEYS[3:4], lambda located: cut(located, 99))
    with world.objects.fault(3, lambda: add(world.store(), KEYS[4])):
        world.store().add(shard.job_key, 1, [(KEYS[3], answer_of(KEYS[3]))])
    head = world.store().head()
    assert [len(index.segments) for index in head.indexes] == [5]
    world.check(world.store(), world.store().lookup(KEYS[:5]))


def test_a_file_that_is_deleted_during_a_lookup_is_looked_up_again() -> None:
    """The head that was read first named it."""
    world = World()
    add(world.store(), KEYS[0])
    store = world.store()
    store.collect({}, retention_s=RETENTION_S)
    world.now += RETENTION_S
    plain, reads = world.objects.read, list[str]()

    def late(uri: str) -> Any:
        if "/keys/" in uri and not reads:
            reads.append(uri)
            store.collect({}, retention_s=RETENTION_S)
        return plain(uri)

    world.objects.read = late  # type: ignore[method-assign]
    assert world.store().lookup(KEYS[:1]).absent().tolist() == [0]
    assert reads
