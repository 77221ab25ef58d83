"""Whole runs: the index is what the source says, and each text is paid for once, wherever a process dies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.ledger import segments
from opensearch_batch.core.ledger.commit import announce
from opensearch_batch.core.ledger.head import ClaimLost
from opensearch_batch.core.ledger.staged import StagedShards
from opensearch_batch.core.runs.repair import Repair
from tests.core import whole_runs
from tests.core.whole_runs import Pipeline, Record, Run, document_of
from tests.examples import examples
from tests.stored import present

SERVICES = ["openai", "sagemaker"]


def record(number: int, text: str, more: int = 0) -> Record:
    """A record; the model reads its text only."""
    return {"id": f"d{number}", "text": text, "more": more}


def expected(source: dict[str, list[Record]]) -> dict[str, Any]:
    """Return the documents of a source: of records with one id, the last one counts."""
    return {each["id"]: document_of(each) for name in sorted(source) for each in source[name]}


def counts(run: Run) -> dict[str, int]:
    """Return the counts of a run that are not zero."""
    assert run.account is not None
    found = run.account.counts
    return {name: getattr(found, name) for name in found.__struct_fields__ if getattr(found, name)}


@pytest.mark.parametrize("service", SERVICES)
def test_only_what_changed_is_paid_for_and_written(service: str) -> None:
    """One record appended, inserted on top, edited, deleted: paid 1, 1, 1, 0; index operations 1, 1, 1, 1."""
    pipeline = Pipeline(service, on_removed="delete")
    rows = [record(number, f"text {number}") for number in range(8)]
    pipeline.put("a.jsonl", *rows)
    first = pipeline.run()
    assert counts(first)["indexed"] == pipeline.service.paid.total() == 8
    changes = [
        ([*rows, record(8, "text 8")], 1),
        ([record(9, "text 9"), *rows, record(8, "text 8")], 1),
        ([record(9, "text 9"), record(0, "edited"), *rows[1:], record(8, "text 8")], 1),
        ([record(9, "text 9"), record(0, "edited"), *rows[1:]], 0),
    ]
    for after, paid in changes:
        paid_before, writes_before = pipeline.service.paid.total(), pipeline.cluster.found.writes
        pipeline.put("a.jsonl", *after)
        pipeline.run()
        assert pipeline.service.paid.total() - paid_before == paid
        assert pipeline.cluster.found.writes - writes_before == 1
        assert pipeline.documents == expected({"a.jsonl": after})


def test_a_run_without_changes_opens_nothing_and_claims_nothing() -> None:
    """Its prepare is all there is of it."""
    pipeline = Pipeline()
    pipeline.put("a.jsonl", record(1, "one"))
    pipeline.run()
    head, opened = pipeline.head(), len(pipeline.objects.opened)
    run = pipeline.run()
    assert (run.manifest, run.account) == (None, None)
    assert (pipeline.head(), len(pipeline.objects.opened)) == (head, opened)


def test_a_move_is_committed_without_a_shard() -> None:
    """Nothing is paid or written, but the next run finds nothing to do."""
    pipeline = Pipeline(on_removed="delete")
    pipeline.put("a.jsonl", record(1, "one"))
    pipeline.run()
    pipeline.remove("a.jsonl")
    pipeline.put("b.jsonl", record(1, "one"))
    moved = pipeline.run()
    assert moved.manifest is not None
    assert (moved.manifest.shards, counts(moved)["unchanged"]) == ([], 1)
    assert list(pipeline.head().objects) == ["s3://lake/in/b.jsonl"]
    assert pipeline.run().manifest is None


def test_kept_documents_are_committed_with_a_remark() -> None:
    """The ledger forgets them, and the account names them."""
    pipeline = Pipeline()
    pipeline.put("a.jsonl", record(1, "one"))
    pipeline.put("b.jsonl", record(2, "two"))
    pipeline.run()
    pipeline.remove("b.jsonl")
    kept = pipeline.run()
    assert counts(kept)["removed"] == 1
    assert kept.account is not None
    assert "1 documents stay in the index" in " ".join(kept.account.remarks)
    assert set(pipeline.documents) == {"d1", "d2"}
    assert pipeline.head().documents == 1


@pytest.mark.parametrize("service", SERVICES)
def test_failed_texts_are_repaired_once_and_then_left(service: str) -> None:
    """A text that fails twice is a dead letter, and is paid again only when it changes."""
    pipeline = Pipeline(service)
    pipeline.put("a.jsonl", *(record(number, f"text {number}") for number in range(6)))
    pipeline.service.fails = {"text 1": 1, "text 2": 9}
    run = pipeline.run()
    assert (counts(run)["indexed"], counts(run)["dead_letters"]) == (5, 1)
    assert pipeline.service.paid == {f"text {number}": 1 + (number in {1, 2}) for number in range(6)}
    pipeline.put("b.jsonl", record(7, "text 7"))
    again = pipeline.run()
    assert counts(again)["indexed"] == 1
    assert pipeline.service.paid["text 2"] == 2
    pipeline.put("a.jsonl", *(record(number, f"text {number}!") for number in range(6)))
    assert counts(pipeline.run())["indexed"] == 6


def test_a_record_whose_prediction_another_run_repairs_is_written_by_the_next_run() -> None:
    """A run waits for one job of repair; a record that is in another run's is a dead letter that is not left."""
    pipeline = Pipeline(repair_at_most="100%")
    pipeline.put("a/1.jsonl", record(1, "both"))
    pipeline.put("b/1.jsonl", record(2, "both"), record(3, "own"))
    pipeline.service.fails = {"both": 1, "own": 1}
    one, other = pipeline.new_run("a/"), pipeline.new_run("b/")
    for run in (one, other):
        run.stages.pop(0)()
    while len(one.stages) > len(["repair", "reconcile"]):
        one.stages.pop(0)()
    Repair(pipeline.objects, pipeline.layout, present(one.manifest), pipeline.adapter, "100%").shard()
    other.finish()
    assert (counts(other)["indexed"], counts(other)["dead_letters"]) == (1, 1)
    one.finish()
    assert counts(pipeline.run("b/"))["indexed"] == 1
    assert set(pipeline.documents) == {"d1", "d2", "d3"}
    assert pipeline.service.paid == {"both": 2, "own": 2}


def test_a_rebuild_pays_nothing_for_lost_predictions() -> None:
    """That they are lost is noticed when they are read; the next run finds the output of their job."""
    pipeline = Pipeline()
    pipeline.put("a.jsonl", *(record(number, f"text {number}") for number in range(12)))
    pipeline.run()
    lost = next(iter(pipeline.objects.list(f"{pipeline.layout.predictions()}/segments/")))
    pipeline.objects.delete(lost.uri)
    rebuild = pipeline.run(rebuild=True)
    assert (counts(rebuild)["indexed"], counts(rebuild)["dead_letters"]) == (9, 3)
    assert pipeline.service.paid.total() == 12
    assert (counts(pipeline.run())["indexed"], pipeline.service.paid.total()) == (3, 12)


def test_a_run_with_too_many_failures_commits_nothing_and_loses_nothing() -> None:
    """The next run pays for the failed texts only."""
    pipeline = Pipeline(repair_at_most="0%")
    pipeline.put("a.jsonl", *(record(number, f"text {number}") for number in range(6)))
    pipeline.service.fails = {"text 1": 1, "text 2": 1}
    with pytest.raises(FatalError, match="2 of 6 records that were paid for have no prediction"):
        pipeline.run()
    assert pipeline.head().committed == 0
    assert counts(pipeline.run())["indexed"] == 6
    assert pipeline.service.paid == {f"text {number}": 1 + (number in {1, 2}) for number in range(6)}


@pytest.mark.parametrize("op_type", ["index", "create", "upsert"])
def test_a_deletion_never_wins_over_a_document_of_its_run(op_type: Any) -> None:
    """An old and a new routing may lead to the same shard; stages are done in any order, and after a clear again."""
    pipeline = Pipeline()
    pipeline.request = msgspec.structs.replace(pipeline.request, op_type=op_type, routing="$.more")
    pipeline.put("a.jsonl", record(1, "text 1", more=1), record(2, "text 2", more=1))
    pipeline.run()
    pipeline.put("a.jsonl", record(1, "text 1", more=2), record(2, "text 2", more=1))
    run = pipeline.new_run()
    run.stages.pop(0)()
    documents, deletions = run.stages[:2]
    for stage in (documents, deletions, documents, deletions):
        stage()
    run.finish()
    assert set(pipeline.documents) == {"d1", "d2"}
    assert pipeline.head().documents == 2


def test_a_trial_that_is_prepared_again_writes_what_it_finds_now() -> None:
    """Though its partition, and so its version, is the same, what it wrote before is not done."""
    pipeline = Pipeline()
    pipeline.put("a.jsonl", record(1, "text"))
    pipeline.run()
    trial = pipeline.new_run(at_s=1.0, is_trial=True)
    for more in (1, 2):
        pipeline.put("a.jsonl", record(1, "text", more))
        trial.stages = [trial.prepare]
        trial.finish()
        assert pipeline.documents["d1"]["more"] == more


def test_an_object_whose_predictions_are_partly_lost_reads_the_output_of_its_job_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With `prepare: false`, an object has the same job again, and other answers of that job are stored."""
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 12)
    pipeline = Pipeline("sagemaker", passthrough=True, max_records=100, repair_at_most="20%")
    pipeline.put("a.jsonl", *(record(number, f"text {number}") for number in range(24)))
    pipeline.run()
    lost, _ = pipeline.objects.list(f"{pipeline.layout.predictions()}/segments/")
    pipeline.objects.delete(lost.uri)
    pipeline.cluster.delete_index()
    with pytest.raises(FatalError, match="12 of 0 records that were paid for have no prediction"):
        pipeline.run()
    assert counts(pipeline.run())["indexed"] == 24
    assert pipeline.service.paid.total() == 24


def test_an_index_that_was_deleted_is_restored_for_nothing() -> None:
    """All predictions are in the store."""
    pipeline = Pipeline()
    rows = [record(number, f"text {number}") for number in range(6)]
    pipeline.put("a.jsonl", *rows)
    pipeline.run()
    pipeline.cluster.delete_index()
    pipeline.run()
    assert pipeline.documents == expected({"a": rows})
    assert pipeline.service.paid.total() == 6


def test_a_run_that_lost_its_claim_neither_writes_nor_commits() -> None:
    """Not even a document that was deleted meanwhile, of which the index has forgotten the version."""
    pipeline = Pipeline(on_removed="delete")
    pipeline.put("a.jsonl", record(1, "one"), record(2, "two"))
    old = pipeline.new_run()
    for _ in range(2):
        old.stages.pop(0)()
    pipeline.put("a.jsonl", record(2, "two"))
    pipeline.run()
    pipeline.cluster.found.forget()
    with pytest.raises(ClaimLost, match="run run2 has claimed this scope after run run1"):
        old.finish()
    assert pipeline.documents == expected({"a": [record(2, "two")]})
    assert pipeline.service.paid == {"one": 1, "two": 1}


NAMES = ("a.jsonl", "b.jsonl", "c.jsonl")
PERMANENT = "z.jsonl"
records = st.lists(
    st.builds(record, st.integers(0, 4), st.sampled_from([f"text {number}" for number in range(6)]), st.integers(0, 1)),
    max_size=4,
)
edits = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(NAMES), records),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("move"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("restore"), st.sampled_from(NAMES)),
)
# How many steps each process lives, and whether the run goes on after the last death.
runs = st.tuples(st.just("run"), st.lists(st.integers(0, 90), max_size=3), st.booleans())
late = st.sampled_from([("continue",), ("forget",), ("lose",)])
events = st.one_of(edits, runs, late)


class History:
    """A pipeline, its source as a dictionary, and the runs that were left."""

    def __init__(self, service: str, split_bytes: int | None = None) -> None:
        self.pipeline = Pipeline(service, on_removed="delete")
        self.pipeline.split_bytes = split_bytes
        self.source: dict[str, list[Record]] = {}
        self.earlier: dict[str, list[Record]] = {}
        self.left: list[Run] = []
        self.put(PERMANENT, [record(9, "permanent")])

    def put(self, name: str, rows: list[Record]) -> None:
        """Write an object."""
        self.earlier[name] = self.source.get(name, [])
        self.source[name] = rows
        self.pipeline.put(name, *rows)

    def remove(self, name: str) -> None:
        """Delete an object."""
        if name in self.source:
            self.earlier[name] = self.source.pop(name)
            self.pipeline.remove(name)

    def move(self, name: str, other: str) -> None:
        """Rename an object."""
        if name in self.source and name != other:
            rows = self.source[name]
            self.remove(name)
            self.put(other, rows)

    def restore(self, name: str) -> None:
        """Write an object as it was before its last change."""
        if rows := self.earlier.get(name):
            self.put(name, rows)

    def run(self, lives: list[int], goes_on: bool) -> None:  # noqa: FBT001 - hypothesis gives it
        """Run; each process dies after some steps, and the next one does the stage again."""
        run = self.pipeline.new_run()
        if all(run.killed_after(steps) for steps in lives) and not goes_on:
            self.left.append(run)
        else:
            run.finish()

    def go_on(self) -> None:
        """Let a run go on that was left; it may have lost its claim, or its shards to another run."""
        if self.left:
            with suppress(ClaimLost, ConfigError):
                self.left.pop().finish()

    def happen(self, event: tuple[Any, ...]) -> None:
        """Let something happen."""
        kind, *arguments = event
        actions: dict[str, Callable[..., object]] = {
            "put": self.put,
            "remove": self.remove,
            "move": self.move,
            "restore": self.restore,
            "run": self.run,
            "continue": self.go_on,
            "forget": self.pipeline.cluster.found.forget,
            "lose": self.pipeline.cluster.delete_index,
        }
        actions[kind](*arguments)


@pytest.mark.parametrize(("service", "split_bytes"), [*((service, None) for service in SERVICES), ("openai", 60)])
@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(events, max_size=12), failing=st.sampled_from([(), (), ("text 1",), ("text 1", "text 2")]))
def test_the_index_is_what_the_source_says_and_each_text_is_paid_once(
    service: str, split_bytes: int | None, history: list[Any], failing: tuple[str, ...]
) -> None:
    """For any edits, moves, deletions, crashes, late writes of older runs, losses of the index, and failing texts.

    Also if several tasks prepare a run, and any of them dies.
    """
    happened = History(service, split_bytes)
    pipeline = happened.pipeline
    pipeline.service.fails = dict.fromkeys(failing, 1_000_000)
    for event in history:
        happened.happen(event)
    last = pipeline.run()
    # A document whose new text has no prediction stays as it was.
    dead = {name for name, document in expected(happened.source).items() if document["text"] in failing}
    assert without(pipeline.documents, dead) == without(expected(happened.source), dead)
    assert {count for text, count in pipeline.service.paid.items() if text not in failing} == {1}
    writes = pipeline.cluster.found.writes
    assert pipeline.run().manifest is None
    assert (pipeline.cluster.found.writes, last.stages) == (writes, [])


def without(documents: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return documents without some."""
    return {name: document for name, document in documents.items() if name not in names}


@pytest.mark.parametrize("steps", range(0, 90, 3))
def test_a_source_that_returns_to_an_earlier_state_after_a_crash(steps: int) -> None:
    """What the killed run wrote or deleted is written and deleted again, though the source is as it was committed."""
    pipeline = Pipeline(on_removed="delete")
    before = [record(1, "one"), record(2, "two")]
    pipeline.put("a.jsonl", *before)
    pipeline.put("z.jsonl", record(9, "permanent"))
    pipeline.run()
    pipeline.put("a.jsonl", record(2, "changed"), record(3, "three"))
    pipeline.put("b.jsonl", record(4, "four"))
    pipeline.new_run().killed_after(steps)
    pipeline.put("a.jsonl", *before)
    pipeline.remove("b.jsonl")
    pipeline.run()
    assert pipeline.documents == expected({"a": before, "z": [record(9, "permanent")]})


@pytest.mark.parametrize("steps", range(0, 70, 2))
def test_a_task_that_is_killed_at_any_step_is_repeated(steps: int) -> None:
    """Of several that prepare a run; equal texts are in several splits, and nothing is paid for twice."""
    pipeline = Pipeline(on_removed="delete")
    pipeline.split_bytes = 150
    rows = [record(number, f"text {number % 5}") for number in range(12)]
    pipeline.put("a.jsonl", *rows)
    pipeline.put("b.jsonl", *(record(number, f"text {number % 7}") for number in range(12, 20)))
    run = pipeline.new_run()
    died = run.killed_after(steps)
    assert died
    run.finish()
    assert counts(run)["indexed"] == 20
    assert pipeline.service.paid == {f"text {number}": 1 for number in range(7)}
    assert pipeline.run().manifest is None


@pytest.mark.parametrize("steps", range(12))
def test_a_cleared_prepare_that_is_killed_deletes_nothing_that_is_there_again(steps: int) -> None:
    """What the killed attempt was about to delete is not taken for a deletion of the attempt before it."""
    pipeline = Pipeline(on_removed="delete")
    for number in range(3):
        pipeline.put(f"{number}.jsonl", record(number, f"text {number}"))
    pipeline.run()
    pipeline.remove("0.jsonl")
    run = pipeline.new_run()
    prepare = run.stages[0]
    prepare()
    pipeline.remove("1.jsonl")
    run.stages = [prepare]
    run.killed_after(steps)
    pipeline.put("1.jsonl", record(1, "text 1"))
    run.stages = [prepare]
    run.finish()
    assert set(pipeline.documents) == {"d1", "d2"}


def test_another_mode_applies_to_objects_that_did_not_change() -> None:
    """A record that had left its object in append mode is removed, and the last object by name wins, not by time."""
    pipeline = Pipeline(mode="append")
    pipeline.put("a.jsonl", record(1, "one"), record(2, "two"))
    pipeline.put("c.jsonl", record(3, "by name"))
    pipeline.run()
    pipeline.put("a.jsonl", record(1, "one"))
    pipeline.put("b.jsonl", record(3, "by time"))
    pipeline.run()
    assert (set(pipeline.documents), pipeline.documents["d3"]["text"]) == ({"d1", "d2", "d3"}, "by time")
    paid = pipeline.service.paid.total()
    pipeline.run(mode="snapshot", on_removed="delete")
    assert (set(pipeline.documents), pipeline.documents["d3"]["text"]) == ({"d1", "d3"}, "by name")
    assert pipeline.service.paid.total() == paid


def test_a_run_into_another_index_that_failed_leaves_the_ledger_of_the_first_one() -> None:
    """The next run into the first index still knows its documents: it deletes one, and writes none."""
    pipeline = Pipeline(on_removed="delete")
    pipeline.put("a.jsonl", record(1, "one"), record(2, "two"))
    pipeline.run()
    cluster = pipeline.cluster
    first, uuid = cluster.found, cluster.uuid
    cluster.delete_index()
    failed = pipeline.new_run()
    for _ in range(2):
        failed.stages.pop(0)()
    assert set(pipeline.documents) == {"d1", "d2"}
    cluster.found, cluster.uuid = first, uuid
    pipeline.put("a.jsonl", record(1, "one"))
    last = pipeline.run()
    assert set(pipeline.documents) == {"d1"}
    assert counts(last)["unchanged"] == 1


def test_what_a_failed_run_was_about_to_delete_stays_if_it_is_there_again_also_without_versions() -> None:
    """An upsert has no external version, so a deletion of the same run would win over it."""
    pipeline = Pipeline(on_removed="delete")
    pipeline.request = msgspec.structs.replace(pipeline.request, op_type="upsert")
    for number in range(3):
        pipeline.put(f"{number}.jsonl", record(number, f"text {number}"))
    pipeline.run()
    pipeline.remove("0.jsonl")
    pipeline.remove("1.jsonl")
    pipeline.new_run().stages[0]()
    pipeline.put("1.jsonl", record(1, "text 1"))
    pipeline.run()
    assert set(pipeline.documents) == {"d1", "d2"}


@pytest.mark.parametrize("restores", [True, False])
def test_a_run_ends_the_claim_of_one_that_failed_also_if_there_is_nothing_to_do_any_more(*, restores: bool) -> None:
    """Otherwise dead letters could not be replayed until the source changes."""
    pipeline = Pipeline()
    pipeline.put("a.jsonl", record(1, "one"))
    pipeline.put("b.jsonl", record(2, "two"))
    pipeline.run()
    pipeline.remove("b.jsonl")
    if restores:
        assert pipeline.new_run().killed_after(2)
        pipeline.put("b.jsonl", record(2, "two"))
    else:
        pipeline.new_run().stages[0]()
    pipeline.run()
    head = pipeline.head()
    assert head.claim.version == head.committed
    assert pipeline.run().manifest is None


def test_a_run_that_announces_its_work_while_another_one_claims_the_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one knows what it has written, though it found no manifest at first."""
    pipeline = Pipeline(on_removed="delete")
    pipeline.put("a.jsonl", record(1, "one"))
    pipeline.run()
    pipeline.put("b.jsonl", record(2, "two"))
    first, announced = pipeline.new_run(), list[Callable[[], None]]()
    with monkeypatch.context() as patch:
        patch.setattr(whole_runs, "announce", lambda *arguments: announced.append(partial(announce, *arguments)))
        first.stages.pop(0)()
    pipeline.remove("b.jsonl")
    replace = pipeline.objects.replace

    def after_the_first_has_written(uri: str, content: bytes, *, etag: str) -> bool:
        pipeline.objects.replace = replace  # type: ignore[method-assign] # the second claims only once
        announced.pop()()
        for stage in first.stages[:2]:
            stage()
        return replace(uri, content, etag=etag)

    pipeline.objects.replace = after_the_first_has_written  # type: ignore[method-assign] # as above
    second = pipeline.new_run()
    with suppress(RetriableError):
        second.finish()
    second.finish()
    assert set(pipeline.documents) == {"d1"}
    with pytest.raises(ClaimLost, match="run run3 has claimed this scope after run run2"):
        first.stages[-1]()


def test_an_attempt_of_prepare_that_is_late_leaves_the_manifest_of_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the later attempt has written is known if its run fails."""
    pipeline = Pipeline(on_removed="delete")
    pipeline.put("a.jsonl", record(1, "one"))
    pipeline.put("b.jsonl", record(2, "two"))
    run, late = pipeline.new_run(), list[Callable[[], None]]()
    prepare = run.stages.pop(0)
    with monkeypatch.context() as patch:
        patch.setattr(whole_runs, "announce", lambda *arguments: late.append(partial(announce, *arguments)))
        prepare()
    prepare()
    with pytest.raises(ClaimLost, match="run run1 has claimed this scope after run run1"):
        late[0]()
    for stage in run.stages[-4:-2]:
        stage()
    pipeline.remove("b.jsonl")
    pipeline.run()
    assert set(pipeline.documents) == {"d1"}


def test_an_attempt_of_prepare_that_is_late_leaves_the_records_that_a_later_one_staged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The source changed in between, so the documents would be those of the earlier attempt for good."""
    pipeline = Pipeline()
    pipeline.put("a.jsonl", record(1, "one", more=1))
    run, late = pipeline.new_run(), list[Callable[[], None]]()
    prepare, write = run.stages.pop(0), StagedShards.write
    with monkeypatch.context() as patch:
        patch.setattr(StagedShards, "write", lambda *arguments: late.append(partial(write, *arguments)))
        prepare()
    run.stages.clear()
    pipeline.put("a.jsonl", record(1, "one", more=2))
    prepare()
    late.pop()()
    run.finish()
    pipeline.run()
    assert pipeline.documents["d1"]["more"] == 2


DAYS = ("dt=1/", "dt=2/", "dt=3/")
arrivals = st.tuples(st.just("put"), st.sampled_from(DAYS), st.sampled_from(NAMES), records)
day_runs = st.tuples(st.just("run"), st.sampled_from(DAYS), st.lists(st.integers(0, 90), max_size=2), st.booleans())


class Days:
    """Partitions of a source, to which objects are added, and in which records change."""

    def __init__(self) -> None:
        self.pipeline = Pipeline(mode="append")
        self.days: dict[str, dict[str, list[Record]]] = {day: {} for day in DAYS}

    def put(self, day: str, name: str, rows: list[Record]) -> None:
        """Write an object; each record of an object that is written again is still there, or changed."""
        known, before = {each["id"] for each in rows}, self.days[day].get(name, [])
        rows = [each for each in before if each["id"] not in known] + rows
        # An object with the same ETag counts as the same object.
        if rows == before:
            return
        # As the last one of the dictionary, it is the newest object.
        self.days[day].pop(name, None)
        self.days[day][name] = rows
        self.pipeline.put(f"{day}{name}", *rows)

    def run(self, day: str, lives: list[int] | None = None, goes_on: bool = True) -> None:  # noqa: FBT001, FBT002 - hypothesis gives it
        """Run a partition that has records."""
        if any(self.days[day].values()):
            run = self.pipeline.new_run(day, float(day.strip("dt=/")) * 86_400)
            if not all(run.killed_after(steps) for steps in lives or ()) or goes_on:
                run.finish()

    def expected(self) -> dict[str, Any]:
        """Return the documents: of the newest partition that has an id, its newest object counts."""
        return {each["id"]: document_of(each) for day in DAYS for rows in self.days[day].values() for each in rows}


@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(st.one_of(arrivals, day_runs), max_size=12), order=st.permutations(DAYS))
def test_the_newest_partition_wins_in_any_order_of_runs(history: list[Any], order: list[str]) -> None:
    """Partitions share the prediction store, so a text is paid for once in all of them."""
    happened = Days()
    for kind, *arguments in history:
        getattr(happened, kind)(*arguments)
    for day in order:
        happened.run(day)
    assert happened.pipeline.documents == happened.expected()
    assert set(happened.pipeline.service.paid.values()) <= {1}
