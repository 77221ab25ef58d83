"""A compactor beside a run: whatever step of one meets which step of the other, no answer is lost or paid for twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import AnswersUnusable, FatalError, RetriableError
from opensearch_batch.core.ledger import compaction, repacking
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.garbage import GRACE_S
from opensearch_batch.core.ledger.head import Entry, Head, ScopeHead
from opensearch_batch.core.ledger.key_index import row_keys
from opensearch_batch.core.ledger.needed_segments import NeededSegments
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RowsReader
from opensearch_batch.core.ledger.scope_use import needed_segments
from opensearch_batch.core.runs.housekeeping import Housekeeper, compact_stores
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import Savings
from tests.core.whole_runs import Killed, Pipeline, Run, document_of

RECORDS = [{"id": f"d{n}", "text": f"t{n}"} for n in range(8)]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small segments are many."""
    monkeypatch.setattr(compaction, "SMALL_SEGMENTS", 1)


class World:
    """A pipeline whose store has three small segments; one of its answers is not needed any more."""

    def __init__(self) -> None:
        self.pipeline = Pipeline()
        self.later = 0.0
        self.pipeline.put("a", *RECORDS[:3])
        self.pipeline.put("b", *RECORDS[3:6])
        self.pipeline.run()
        self.changed = {**RECORDS[0], "text": "other"}
        self.pipeline.put("a", self.changed, *RECORDS[1:3])
        self.pipeline.put("c", RECORDS[6])
        self.pipeline.run()

    @property
    def store(self) -> PredictionStore:
        """A process has its own."""
        folder = self.pipeline.layout.predictions()
        return PredictionStore(self.pipeline.objects, folder, clock=lambda: time.time() + self.later)

    def keeper(self, **bounds: Any) -> Housekeeper:
        """The compactor."""
        return Housekeeper(self.pipeline.objects, self.store, self.pipeline.layout.scopes(), **bounds)

    def keep_house(self) -> int:
        """Compact, and collect garbage."""
        self.store.register(self.pipeline.layout.scopes())
        keeper = self.keeper()
        count = keeper.compact()
        scopes = keeper.scopes()
        self.store.collect(needed_segments(scopes, self.store.folder), retention_s=GRACE_S)
        for scope in scopes:
            files = [item.uri for item in scope.items if "/rows/" in item.uri]
            now = time.time() + self.later
            for uri in ScopeHead(self.pipeline.objects, scope.head_uri).collect(files, now=now):
                self.pipeline.objects.delete(uri)
        return count

    def last_run(self) -> Run:
        """A run that writes a new text, needs an answer again that no record has, and removes a record."""
        self.pipeline.put("a", RECORDS[0], *RECORDS[1:3])
        self.pipeline.put("b", RECORDS[3], {**RECORDS[4], "more": 1})
        self.pipeline.put("d", RECORDS[7])
        return self.pipeline.new_run(on_removed="delete")

    def check(self) -> None:
        """Each text was paid for once; all counts are exact; all answers are there, also long after."""
        expected: list[Any] = [RECORDS[0], *RECORDS[1:4], {**RECORDS[4], "more": 1}, *RECORDS[6:8]]
        assert self.pipeline.documents == {each["id"]: document_of(each) for each in expected}
        assert set(self.pipeline.service.paid.values()) == {1}
        for _ in range(4):
            self.keep_house()
            self.check_counts()
            self.later += GRACE_S
        names = {item.uri for item in self.pipeline.objects.list(f"{self.store.folder}/segments/")}
        assert len(names) == len(self.store.head().segments)
        assert sum(segment.rows for segment in self.store.head().segments.values()) == len(expected)

    def check_counts(self) -> None:
        """The head of the scope counts exactly the answers in segments that there are."""
        head, needed = self.pipeline.head(), NeededSegments[str](self.store)
        for uri, entry in head.objects.items():
            for rows in RowsReader(self.pipeline.objects).read(entry):
                needed.add(uri, rows)
        assert {uri: entry.segments for uri, entry in head.objects.items()} == needed.close()
        keys = [row_keys(rows).tobytes() for entry in head.objects.values() for rows in self.rows(entry)]
        located = self.store.lookup(keys)
        assert (located.source >= 0).all()
        with self.store.reader() as reader:
            assert len(list(reader.read(located.locations()))) == len(located.keys)

    def rows(self, entry: Any) -> Iterator[Any]:
        """The rows of an object."""
        return RowsReader(self.pipeline.objects).read(entry)

    def meet(self, number: int, event: Callable[[], object], work: Callable[[], object]) -> bool:
        """Do work, and let something happen before or after a write of it; return whether there was such a write."""
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1
            if steps == number + 1:
                event()

        self.pipeline.life.step = step  # type: ignore[method-assign]
        try:
            work()
        finally:
            # What comes later is another process, and nothing happens to it.
            del self.pipeline.life.step
        return steps > number


def killed() -> None:
    """The process ends here."""
    raise Killed


def test_small_segments_become_one_and_unneeded_answers_another() -> None:
    """The heads name what there is now; a second compaction finds nothing."""
    world = World()
    before = world.store.head()
    assert len(before.segments) == 3
    assert world.keep_house() == 3
    head = world.store.head()
    assert sorted((each.rows, each.unused_since is None) for each in head.segments.values()) == [(1, False), (7, True)]
    assert set(head.garbage) >= set(before.segments)
    world.check_counts()
    assert world.keep_house() == 0
    assert world.store.head() == head


def test_a_compactor_at_every_step_of_a_run() -> None:
    """Before and after each write of the run."""
    for number in count():
        world = World()
        happened = world.meet(number, world.keep_house, world.last_run().finish)
        world.check()
        if not happened:
            break
    assert number > 40


def test_a_run_at_every_step_of_a_compactor() -> None:
    """The compactor may read heads that are not the last ones any more."""
    for number in count():
        world = World()
        run = world.last_run()
        happened = world.meet(number, run.finish, world.keep_house)
        run.finish()
        world.check()
        if not happened:
            break
    assert number > 10


def test_a_compactor_that_is_killed_at_every_step() -> None:
    """What it has written is garbage, or in the head; the next compactor counts again."""
    for number in count():
        world, happened = World(), True
        with suppress(Killed):
            happened = world.meet(number, killed, world.keep_house)
        world.last_run().finish()
        world.check()
        if not happened:
            break
    assert number > 10


def test_two_compactors_at_once() -> None:
    """One of them publishes; what the other has written is garbage."""
    for number in count():
        world = World()
        happened = world.meet(number, world.keep_house, world.keep_house)
        world.last_run().finish()
        world.check()
        if not happened:
            break
    assert number > 10


def test_a_reader_reads_on_in_segments_that_were_rewritten() -> None:
    """Until the grace period has passed, whatever retention deletes."""
    world = World()
    entries = world.pipeline.head().objects.values()
    located = world.store.lookup([key for entry in entries for key in keys_of(world, entry)])
    reader = world.store.reader()
    expected = list(reader.read(located.locations()))
    world.keep_house()
    world.later += GRACE_S - 60
    world.keep_house()
    with world.store.reader() as late:
        assert list(late.read(located.locations())) == expected
    world.later += 60
    world.keep_house()
    with world.store.reader() as late, pytest.raises(AnswersUnusable, match="missing"):
        list(late.read(located.locations()))


def keys_of(world: World, entry: Any) -> list[bytes]:
    """The content keys of an object."""
    return [row_keys(rows).tobytes() for rows in world.rows(entry)]


def test_nothing_is_unused_while_segments_are_not_counted() -> None:
    """The compactor was killed before it counted the objects again."""
    world = World()
    keeper = world.keeper()
    keeper.recount = keeper.scopes  # type: ignore[method-assign]
    world.store.register(world.pipeline.layout.scopes())
    assert keeper.compact() == 3
    for _ in range(3):
        needed = needed_segments(keeper.scopes(), world.store.folder)
        world.store.collect(needed, retention_s=GRACE_S)
        world.later += GRACE_S
    assert sum(each.rows for each in world.store.head().segments.values()) == 8
    assert keeper.compact() == 0
    world.keep_house()
    world.check_counts()


def test_only_the_pipeline_of_the_store_counts_again() -> None:
    """Another one that has its predictions elsewhere names segments that this store never had."""
    world = World()
    uri = world.pipeline.layout.scope_head("other")
    ScopeHead(world.pipeline.objects, uri).write(
        _elsewhere(world.pipeline.head()), after=ScopeHead(world.pipeline.objects, uri).load()
    )
    before = ScopeHead(world.pipeline.objects, uri).load()
    world.keep_house()
    assert ScopeHead(world.pipeline.objects, uri).load() == before
    assert all(segment.rows in (1, 7) for segment in world.store.head().segments.values())


def _elsewhere(head: Head) -> Head:
    objects = {uri: msgspec.structs.replace(entry, segments={"elsewhere": 1}) for uri, entry in head.objects.items()}
    return msgspec.structs.replace(head, objects=objects, predictions="s3://lake/work/predictions")


def test_answers_stay_of_which_nobody_knows_who_needs_them() -> None:
    """A ledger that was made from an index names all segments, until the next run."""
    world = World()
    store, uri = world.store, world.pipeline.layout.scope_head("rebuilt")
    segments = list(store.head().segments)
    entry = Entry("", 0, 0, etag="", segments=dict.fromkeys([*segments, "gone"], 0))
    document = ScopeHead(world.pipeline.objects, uri)
    document.write(Head(objects={"index:books": entry}), after=Head())
    for _ in range(3):
        assert world.keep_house() == 0
        world.later += GRACE_S
    assert list(store.head().segments) == segments
    assert document.load().objects["index:books"].segments == dict.fromkeys(segments, 0)


def test_a_compactor_ends_in_time() -> None:
    """It begins nothing more; the command has no bounds."""
    world = World()
    world.store.register(world.pipeline.layout.scopes())
    assert world.keeper(compaction_s=0).compact() == 0
    assert world.keeper().compact(batches=0) == 0
    assert compact_stores(world.pipeline.objects, world.pipeline.layout.scopes(), [world.store.folder]) == 3
    world.check_counts()


def test_a_damaged_segment_is_named_and_left_out() -> None:
    """Its answers are absent, and the next compactor does its work."""
    world = World()
    name = next(iter(world.store.head().segments))
    world.store.register(world.pipeline.layout.scopes())
    world.pipeline.objects.write(f"{world.store.folder}/segments/{name}.parquet", b"damaged")
    with pytest.raises(AnswersUnusable, match=name):
        world.keeper().compact()
    assert name not in world.store.head().segments
    world.keep_house()
    assert sum(each.rows for each in world.store.head().segments.values()) == 5


def test_a_missing_file_of_rows_is_named_and_nothing_is_rewritten() -> None:
    """Nobody knows which answers are needed."""
    world = World()
    world.store.register(world.pipeline.layout.scopes())
    before = world.store.head()
    rows = next(iter(world.pipeline.head().objects.values())).rows
    world.pipeline.objects.delete(rows)
    with pytest.raises(FatalError, match="ledger rebuild"):
        world.keeper().compact()
    assert world.store.head() == before


@pytest.mark.parametrize(("days", "is_refused"), [(6.9, False), (7.1, True)])
def test_a_process_that_paused_does_not_name_what_may_be_deleted(
    monkeypatch: pytest.MonkeyPatch, days: float, *, is_refused: bool
) -> None:
    """Between the write of its files and the head, a collection has marked them."""
    world = World()
    objects, store = world.pipeline.objects, world.store
    plain = objects.upload

    def upload(uri: str, content: Any) -> None:
        plain(uri, content)
        if "/keys/" in uri:
            monkeypatch.undo()
            world.store.collect((), retention_s=GRACE_S)
            world.later += days * 86_400

    monkeypatch.setattr(objects, "upload", upload)
    answers = [(b"k" * 16, StoredAnswer(b"{}"))]
    if is_refused:
        with pytest.raises(RetriableError, match="garbage collection may delete it"):
            store.add("job", 1, answers)
        store.add("job", 1, answers)
    else:
        store.add("job", 1, answers)
    assert store.head().has("job", 1)
    assert store.head().files().isdisjoint(store.head().garbage)
    located = world.store.lookup([b"k" * 16])
    with world.store.reader() as reader:
        assert list(reader.read(located.locations())) == [StoredAnswer(b"{}")]


def test_layouts_are_those_of_the_pipeline() -> None:
    """A compactor works below the folder of the store only."""
    world = World()
    before = {item.uri for item in world.pipeline.objects.list("s3://lake/")}
    world.keep_house()
    new = {item.uri for item in world.pipeline.objects.list("s3://lake/")} - before
    assert {uri.rpartition("/")[0] for uri in new} == {
        f"{Layout('s3://lake/work', 'p').predictions()}{folder}" for folder in ("", "/segments", "/keys")
    }


def test_savings_are_counted_once() -> None:
    """Also if the last task is repeated; what a run without ledger and store would have paid for is spared."""
    world = World()
    assert world.pipeline.head().savings == Savings(runs=2, paid=8, reused=0, spared=5)
    run = world.last_run()
    run.stages.pop(0)()
    reconcile = run.stages[-1]
    run.finish()
    expected = Savings(runs=3, paid=9, reused=2, spared=11)
    assert world.pipeline.head().savings == expected
    reconcile()
    assert world.pipeline.head().savings == expected


def test_what_a_failed_run_paid_is_counted() -> None:
    """By the run that goes on, which pays nothing again."""
    world = World()
    failed = world.last_run()
    for _ in range(2):
        failed.stages.pop(0)()
    world.pipeline.new_run(on_removed="delete").finish()
    savings = world.pipeline.head().savings
    assert (savings.runs, savings.paid) == (3, sum(world.pipeline.service.paid.values())) == (3, 9)


def test_rows_in_many_files_are_written_again_by_the_next_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objects keep them, and the next run finds nothing to do."""
    monkeypatch.setattr(repacking, "SMALL_FILES", 3)
    world = World()
    files = list[int]()
    for number in range(12):
        world.pipeline.put(f"n{number}", {"id": f"n{number}", "text": f"n{number}"})
        world.pipeline.run()
        files.append(len({entry.rows for entry in world.pipeline.head().objects.values()}))
    assert max(files) <= 5
    world.keep_house()
    world.check_counts()
    assert len(world.pipeline.documents) == 19
    assert world.pipeline.run().manifest is None
