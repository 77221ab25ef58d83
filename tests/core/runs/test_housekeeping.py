"""A compactor beside a run: whatever step of one meets which step of the other, no answer is lost or paid for twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from itertools import count
from typing import Any

import pytest

from opensearch_batch.core.errors import AnswersUnusable, FatalError, RetriableError
from opensearch_batch.core.ledger import compaction, repacking
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.garbage import GRACE_S
from opensearch_batch.core.ledger.head import Entry, Head, ScopeHead
from opensearch_batch.core.ledger.key_index import row_keys, split
from opensearch_batch.core.ledger.needed_segments import NeededSegments
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RowsReader
from opensearch_batch.core.ledger.scope_use import needed_segments
from opensearch_batch.core.ledger.segments import StoreFiles
from opensearch_batch.core.ledger.store_head import Located
from opensearch_batch.core.runs import retention
from opensearch_batch.core.runs.housekeeping import Housekeeper, compact_stores
from opensearch_batch.core.runs.retention import Retention
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import Savings
from tests.core.interleaving import interleave
from tests.core.whole_runs import Killed, Pipeline, Run, document_of

RECORDS = [{"id": f"d{n}", "text": f"t{n}"} for n in range(8)]
HOUR_S, DAY_S = 3_600.0, 86_400.0


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small segments are many; a compactor that fails is no warning only."""
    monkeypatch.setattr(compaction, "SMALL_SEGMENTS", 1)
    monkeypatch.setattr(retention.log, "warning", pytest.fail)


class World:
    """A pipeline whose store has three small segments; one of its answers is not needed any more.

    The clock of the compactor, which is also that of the store, is `later` than that of the runs.
    """

    def __init__(self, later: float = 0.0) -> None:
        self.pipeline = Pipeline()
        self.later = later
        self.pipeline.objects.clock = self.clock
        self.pipeline.put("a", *RECORDS[:3])
        self.pipeline.put("b", *RECORDS[3:6])
        self.pipeline.run()
        self.changed = {**RECORDS[0], "text": "other"}
        self.pipeline.put("a", self.changed, *RECORDS[1:3])
        self.pipeline.put("c", RECORDS[6])
        self.pipeline.run()

    def clock(self) -> float:
        """The time of the compactor."""
        return time.time() + self.later

    @property
    def store(self) -> PredictionStore:
        """A process has its own."""
        return PredictionStore(self.pipeline.objects, self.pipeline.predictions, clock=self.clock)

    def keeper(self, **bounds: Any) -> Housekeeper:
        """The compactor."""
        return Housekeeper(self.pipeline.objects, self.store, **bounds)

    def keep_house(self, pipeline: Pipeline | None = None) -> None:
        """Compact, collect garbage, and delete old files, as at the end of a run."""
        layout = (pipeline or self.pipeline).layout
        house = Retention(
            self.pipeline.objects, layout, self.store, outputs=lambda *_: [], unstage=self.pipeline.service.unstage
        )
        house.run(GRACE_S, now=self.clock())

    def pass_days(self, days: float, *, step: float = 1.0) -> None:
        """Keep house each day, or after so many days, as the runs of other partitions do."""
        end = self.later + days * DAY_S
        while self.later < end:
            self.later = min(self.later + step * DAY_S, end)
            self.keep_house()

    def last_run(self) -> Run:
        """A run that writes a new text, needs an answer again that no record has, and removes a record."""
        self.pipeline.put("a", RECORDS[0], *RECORDS[1:3])
        self.pipeline.put("b", RECORDS[3], {**RECORDS[4], "more": 1})
        self.pipeline.put("d", RECORDS[7])
        return self.pipeline.new_run(on_removed="delete")

    def check(self) -> None:
        """Each text was paid for once; all counts are exact; all answers are there, also long after."""
        self.check_documents()
        assert set(self.pipeline.service.paid.values()) == {1}
        for _ in range(4):
            self.keep_house()
            self.check_counts()
            self.later += GRACE_S
        files = {item.uri for item in self.pipeline.objects.list(f"{self.store.folder}/segments/")}
        assert len(files) == len(self.store.head().segments)
        assert sum(segment.rows for segment in self.store.head().segments.values()) == 7

    def check_documents(self) -> None:
        """The index has what the last run found in the source."""
        expected: list[Any] = [RECORDS[0], *RECORDS[1:4], {**RECORDS[4], "more": 1}, *RECORDS[6:8]]
        assert self.pipeline.documents == {each["id"]: document_of(each) for each in expected}

    def check_counts(self, pipeline: Pipeline | None = None) -> None:
        """The head of the scope counts exactly the answers in segments that there are, and no answer is lost."""
        head, needed = (pipeline or self.pipeline).head(), NeededSegments[str](self.store)
        for uri, entry in head.objects.items():
            for rows in self.rows(entry):
                needed.add(uri, rows)
        assert {uri: entry.segments for uri, entry in head.objects.items()} == needed.close()
        located = self.store.lookup([key for entry in head.objects.values() for key in keys_of(self, entry)])
        assert (located.source >= 0).all()
        with self.store.reader() as reader:
            assert len(list(reader.read(located.locations()))) == len(located.keys)

    def rows(self, entry: Any) -> Iterator[Any]:
        """The rows of an object."""
        return RowsReader(self.pipeline.objects).read(entry)

    def meet(self, number: int, event: Callable[[], object], work: Callable[[], object]) -> bool:
        """Do work, and let something happen before a write of it; return whether there was such a write.

        A write has two steps; what happens after one happens before the next.
        """
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1
            if steps == 2 * number + 1:
                event()

        self.pipeline.life.step = step  # type: ignore[method-assign]
        try:
            work()
        finally:
            # What comes later is another process, and nothing happens to it.
            del self.pipeline.life.step
        return steps > 2 * number


def killed() -> None:
    """The process ends here."""
    raise Killed


def worlds() -> Iterator[tuple[int, World]]:
    """Numbered worlds, in which the clock of the compactor is two hours ahead or behind."""
    for number in count():
        yield number, World(2 * HOUR_S if number % 2 else -2 * HOUR_S)


def test_small_segments_become_one_and_unneeded_answers_another() -> None:
    """The heads name what there is now; a second compaction finds nothing."""
    world = World()
    before = world.store.head()
    assert len(before.segments) == 3
    world.keep_house()
    head = world.store.head()
    assert sorted((each.rows, each.unused_since is None) for each in head.segments.values()) == [(1, False), (7, True)]
    assert set(head.garbage) >= set(before.segments)
    world.check_counts()
    world.keep_house()
    assert world.store.head() == head


@pytest.mark.slow
def test_a_compactor_at_every_step_of_a_run() -> None:
    """Before each write of the run, and after the last one."""
    for number, world in worlds():
        happened = world.meet(number, world.keep_house, world.last_run().finish)
        world.check()
        if not happened:
            break
    assert number > 20


@pytest.mark.slow
def test_a_run_at_every_step_of_a_compactor() -> None:
    """The compactor may read heads that are not the last ones any more."""
    for number, world in worlds():
        run = world.last_run()
        happened = world.meet(number, run.finish, world.keep_house)
        run.finish()
        world.check()
        if not happened:
            break
    assert number > 5


def test_a_compactor_that_is_killed_at_every_step() -> None:
    """What it has written is garbage, or in the head; the next compactor counts again."""
    for number, world in worlds():
        happened = True
        with suppress(Killed):
            happened = world.meet(number, killed, world.keep_house)
        world.last_run().finish()
        world.check()
        if not happened:
            break
    assert number > 5


@pytest.mark.slow
def test_two_compactors_at_once() -> None:
    """One of them publishes; what the other has written is garbage."""
    for number, world in worlds():
        happened = world.meet(number, world.keep_house, world.keep_house)
        world.last_run().finish()
        world.check()
        if not happened:
            break
    assert number > 5


@pytest.mark.parametrize("seed", range(10))
def test_a_run_and_two_compactors_in_any_order_of_their_steps(seed: int) -> None:
    """Each of them goes on after any step of another."""
    world = World()
    interleave(world.pipeline.life, seed, world.last_run().finish, world.keep_house, world.keep_house)
    world.check()


def test_a_run_that_is_slower_than_the_grace_period() -> None:
    """Before any stage: its files stay, and it ends as any other. Answers that only it needs may be paid for again."""
    for paused in count():
        world, stages, failures = World(), 0, list[str]()
        run = world.last_run()
        while run.stages and len(failures) < 2:
            if stages == paused and not failures:
                world.pass_days(40, step=8)
            try:
                run.stages[0]()
            except FatalError as error:
                # A job that was not submitted in time; prepare is cleared.
                failures.append(str(error).rpartition("/")[2])
                run.stages = [run.prepare]
            else:
                run.stages.pop(0)
                stages += 1
        world.check_documents()
        assert failures in ([], ["input.jsonl: no such object"])
        assert run.account is not None
        assert run.account.counts.dead_letters == 0
        paid = world.pipeline.service.paid
        assert {text: times for text, times in paid.items() if times > 1}.items() <= {"t0": 2, "t7": 2}.items()
        keys = [key for entry in world.pipeline.head().objects.values() for key in keys_of(world, entry)]
        assert len(world.store.lookup(keys).absent()) <= 2
        world.pass_days(40, step=8)
        assert world.pipeline.run().manifest is None
        if paused >= stages:
            break
    assert stages > 4


def test_a_reader_reads_on_in_segments_that_were_rewritten() -> None:
    """Until the grace period has passed, whatever retention deletes."""
    world = World()
    entries = world.pipeline.head().objects.values()
    located = world.store.lookup([key for entry in entries for key in keys_of(world, entry)])
    reader = world.store.reader()
    expected = list(reader.read(located.locations()))
    world.keep_house()
    world.later += GRACE_S - HOUR_S
    world.keep_house()
    with world.store.reader() as late:
        assert list(late.read(located.locations())) == expected
    world.later += HOUR_S
    world.keep_house()
    with world.store.reader() as late, pytest.raises(AnswersUnusable, match="missing"):
        list(late.read(located.locations()))


def keys_of(world: World, entry: Any) -> list[bytes]:
    """The content keys of an object."""
    return [key for rows in world.rows(entry) for key in split(row_keys(rows))]


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


@pytest.mark.parametrize("predictions", ["s3://lake/work/predictions", ""])
def test_a_scope_that_is_not_counted_is_left_alone(predictions: str) -> None:
    """Its predictions are in another store, or it was made from an index and names all segments without a count."""
    world = World()
    segments = dict.fromkeys([*world.store.head().segments, "gone"], 1 if predictions else 0)
    entry = Entry("", 0, 0, etag="", segments=segments)
    document = ScopeHead(world.pipeline.objects, world.pipeline.layout.scope_head("another"))
    document.write(Head(objects={"index:books": entry}, predictions=predictions), after=Head())
    before = document.load()
    world.pass_days(40, step=8)
    assert document.load() == before
    rows = sorted(segment.rows for segment in world.store.head().segments.values())
    # Nobody knows who needs the answers of segments that are named without a count.
    assert rows == ([7] if predictions else [2, 3, 3])
    world.check_counts()


def test_a_compactor_ends_in_time() -> None:
    """It begins nothing more; the command has no bounds."""
    world = World()
    world.store.register(world.pipeline.layout.scopes())
    assert world.keeper(compaction_s=0).compact() == 0
    assert compact_stores(world.pipeline.objects, [world.store.folder]) == 3
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


def test_a_store_whose_index_and_segment_are_lost_is_counted_again() -> None:
    """The compactor that was killed before it counted is followed by one that cannot find all answers."""
    world = World()
    keeper = world.keeper()
    keeper.recount = keeper.scopes  # type: ignore[method-assign]
    world.store.register(world.pipeline.layout.scopes())
    assert keeper.compact() == 3
    head = world.store.head()
    lost = next(name for name, segment in head.segments.items() if segment.rows == 7)
    for uri in (f"keys/{head.indexes[-1].file}.npy", f"segments/{lost}.parquet"):
        world.pipeline.objects.delete(f"{world.store.folder}/{uri}")
    with pytest.raises(AnswersUnusable, match=lost):
        world.keeper().compact()
    world.keep_house()
    assert all(entry.segments == {} for entry in world.pipeline.head().objects.values())


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


@pytest.mark.parametrize(("days", "is_refused"), [(6.9, False), (7.1, True), (40, True)])
def test_a_process_that_paused_does_not_name_what_may_be_deleted(days: float, *, is_refused: bool) -> None:
    """Between the write of its files and the head, collections have marked them, and deleted them with their marks."""
    world = World()
    objects, store, paused = world.pipeline.objects, world.store, list[str]()
    plain = objects.upload

    def upload(uri: str, content: Any) -> None:
        plain(uri, content)
        if "/keys/" in uri and not paused:
            paused.append(uri)
            world.pass_days(days)

    objects.upload = upload  # type: ignore[method-assign]
    answers = [(b"k" * 16, StoredAnswer(b"{}"))]
    if is_refused:
        with pytest.raises(RetriableError, match="garbage collection may delete it"):
            store.add("job", 1, answers)
    store.add("job", 1, answers)
    assert store.head().has("job", 1)
    assert store.head().files().isdisjoint(store.head().garbage)
    located = world.store.lookup([b"k" * 16])
    with world.store.reader() as reader:
        assert list(reader.read(located.locations())) == [StoredAnswer(b"{}")]


def test_a_compactor_that_paused_deletes_nothing_too_early() -> None:
    """Retention and grace period begin when it publishes: until then, runs find answers in the old segments."""
    world, found = World(), list[Located]()
    files = StoreFiles(world.pipeline.objects, world.pipeline.predictions, world.clock)
    store, plain = world.store, Housekeeper._rows  # noqa: SLF001 - the compactor pauses here
    stored = {key for name in store.head().segments for key in split(files.segment_keys(name))}
    needed = {key for entry in world.pipeline.head().objects.values() for key in keys_of(world, entry)}
    (unneeded,) = stored - needed

    def slow(keeper: Housekeeper, objects: dict[str, Entry]) -> Iterator[Any]:
        if not found:
            world.later += 6 * DAY_S
            found.append(store.reserve([unneeded], lambda _: [])[0])
        return plain(keeper, objects)

    world.store.register(world.pipeline.layout.scopes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Housekeeper, "_rows", slow)
        assert world.keeper().compact() == 3
    world.pass_days(13)
    with store.reader() as reader:
        assert len(list(reader.read(found[0].locations()))) == 1
    assert not len(store.lookup([unneeded]).absent())


def test_a_store_that_is_made_again_names_no_file_that_may_be_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection has decided what to delete, and goes on when the head is another one."""
    world, plain = World(), StoreFiles.delete
    old = set(world.store.head().segments)

    def slow(files: StoreFiles, uris: list[str]) -> None:
        assert world.store.rebuild(lambda _: False) == []
        plain(files, uris)

    world.keep_house()
    world.later += GRACE_S
    monkeypatch.setattr(StoreFiles, "delete", slow)
    world.keep_house()
    assert old.isdisjoint(world.store.head().segments)
    world.check_counts()


@pytest.mark.parametrize("is_known", [True, False])
def test_a_store_that_pipelines_share(*, is_known: bool) -> None:
    """Answers stay that only the other pipeline needs, also if its first run has not ended when they are compacted."""
    world = World()
    other = copy(world.pipeline)
    other.layout, other.source_prefix = Layout("s3://lake/work", "q"), "s3://lake/other/"
    records = [{"id": f"q{n}", "text": text} for n, text in enumerate(("t0", "t1", "new"))]
    other.put("x", *records)
    other.run()
    if is_known:
        world.keep_house(other)
    world.pipeline.put("a", *({**record, "text": f"{record['text']}!"} for record in RECORDS[:3]))
    world.pipeline.run()
    world.keep_house()
    world.keep_house(other)
    world.pass_days(40, step=8)
    world.check_counts()
    world.check_counts(other)
    paid = world.pipeline.service.paid.copy()
    other.run(rebuild=True)
    assert other.documents.items() >= {each["id"]: document_of(each) for each in records}.items()
    assert world.pipeline.service.paid == paid
    assert set(paid.values()) == {1}


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
