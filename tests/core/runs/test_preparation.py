"""Prepare stages what changed, pays for each new text once, and leaves to the next run what it cannot read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any, Literal, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.jobs.predict_action import RealtimeLimit
from opensearch_batch.core.ledger.predictions import MIN_RETENTION_S
from opensearch_batch.core.ledger.rows import RecordState, RowsReader
from opensearch_batch.core.runs.plan import RunPlan
from opensearch_batch.core.runs.preparation import PreparedRun
from opensearch_batch.core.runs.retention import Retention
from opensearch_batch.core.sharding.document_ids import DeletedWhen
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import DELETIONS
from tests.core.memory_objects import MemoryObjects
from tests.core.runs.nights import SOURCE, Nights, record
from tests.examples import examples
from tests.stored import present

DELETED = DeletedWhen("$.op", "delete")


def counts(prepared: PreparedRun) -> tuple[int, ...]:
    """New, input changed, other changed, unchanged, removed, duplicate."""
    found = prepared.manifest.counts
    return (found.new, found.input_changed, found.other_changed, found.unchanged, found.removed, found.duplicate)


def texts(nights: Nights, prepared: PreparedRun) -> list[str]:
    """The texts of the staged records."""
    return [json.loads(each.record)["text"] for each in nights.staged(prepared)]


class Row(NamedTuple):
    """A record of the model; one without a text is rejected by prepare, and the text `dead` by the index."""

    id: str
    text: str | None
    price: int = 0
    op: str = "index"

    def line(self) -> bytes:
        """The line of the record."""
        return json.dumps({name: value for name, value in self._asdict().items() if value is not None}).encode()


class Night(NamedTuple):
    """What happens before a run: new contents of objects, None for deleted ones; and where the run stops."""

    contents: dict[str, Sequence[Row] | None]
    stops: Literal["", "prepared", "predicted"] = ""


rows = st.builds(
    Row,
    st.sampled_from(["1", "1", "2", "3"]),
    st.sampled_from(["a", "a", "b", "c", "dead", None]),
    st.sampled_from([0, 0, 1]),
    st.sampled_from(["index", "index", "index", "delete"]),
)
nights_of_history = st.lists(
    st.builds(
        Night,
        st.dictionaries(
            st.sampled_from(["a", "b", "c"]), st.one_of(st.none(), *[st.lists(rows, max_size=4)] * 3), max_size=2
        ),
        st.sampled_from(["", "", "prepared", "predicted"]),
    ),
    min_size=2,
    max_size=6,
)


class Model:
    """What the index has, and which records a run writes, by comparing everything with everything."""

    def __init__(self, *, deletes: bool) -> None:
        self.known: dict[str, Row] = {}
        self.index: dict[str, Row] = {}
        self.paid = set[str]()
        self._deletes = deletes

    def run(self, source: dict[str, Sequence[Row]]) -> list[Row]:
        """Apply a run, and return the records that it stages."""
        winners = {row.id: row for _, rows in sorted(source.items()) for row in rows}
        for id_ in self.known.keys() - winners.keys():
            del self.known[id_]
            if self._deletes:
                self.index.pop(id_, None)
        staged = []
        for id_, row in winners.items():
            if row.op == "delete":
                self.index.pop(id_, None)
            elif row.text is not None and self.known.get(id_) != row:
                staged.append(row)
                self.paid.add(row.text)
                if row.text != "dead":
                    self.index[id_] = row
            self.known[id_] = row
        return staged


@given(history=nights_of_history, deletes=st.booleans(), is_small=st.booleans())
@settings(max_examples=examples(60), deadline=None)
def test_a_run_stages_what_differs_and_pays_once(history: list[Night], *, deletes: bool, is_small: bool) -> None:
    """Whatever happens to the source, wherever earlier runs stopped, and if nothing fits into memory."""
    nights = Nights(
        on_removed="delete" if deletes else "keep", deleted=DELETED, max_dead_letters="100%", max_removed="100%"
    )
    model, source = Model(deletes=deletes), dict[str, Sequence[Row]]()
    with pytest.MonkeyPatch.context() as patch:
        if is_small:
            patch.setattr("opensearch_batch.core.ledger.staged.MEMORY_BYTES", 1)
            patch.setattr("opensearch_batch.core.sharding.record_reader.TABLE_ROWS", 2)
            patch.setattr("opensearch_batch.core.sharding.json_blocks.BLOCK_BYTES", 100)
        for night in [*history, Night({}), Night({})]:
            for name, content in night.contents.items():
                if content is None:
                    source.pop(name, None)
                    nights.delete(name)
                else:
                    source[name] = content
                    nights.put(name, *(row.line() for row in content))
            follow(nights, model, source, night.stops)
    assert max(nights.paid.values(), default=0) <= 1
    if not any(night.stops for night in history):
        assert len(nights.paid) == len(model.paid)


def follow(nights: Nights, model: Model, source: dict[str, Sequence[Row]], stops: str) -> None:
    """Run a night, and compare it with the model."""
    if not source:
        return
    try:
        prepared = nights.preparation().run()
    except FatalError as error:
        # A run of dead letters only is never a success.
        assert "dead letters" in str(error) or "no usable record" in str(error)  # noqa: PT017 - it may be raised
        return
    if stops:
        if prepared is not None and stops == "predicted":
            nights.predict(prepared)
        return
    expected = model.run(source)
    if prepared is None:
        assert not expected
        return
    staged = [json.loads(each.record) for each in nights.staged(prepared)]
    assert sorted(map(json.dumps, staged)) == sorted(json.dumps(json.loads(row.line())) for row in expected)
    nights.finish(prepared, dead=("dead",))
    assert nights.index == {id_: json.loads(row.line()) for id_, row in model.index.items()}
    assert nights.is_done()


def first_night(count: int = 6, **options: Any) -> Nights:
    """A pipeline with `count` records in each of two objects, after its first run."""
    nights = Nights(**options)
    nights.put("a.jsonl", *(record(number, f"text {number}") for number in range(count)))
    nights.put("b.jsonl", *(record(number, f"text {number}") for number in range(count, 2 * count)))
    nights.run()
    return nights


@pytest.mark.parametrize(
    ("records", "expected", "paid", "operations"),
    [
        ([*range(6), "new"], (1, 0, 0, 6, 0, 0), 1, 1),
        (["new", *range(6)], (1, 0, 0, 6, 0, 0), 1, 1),
        ([0, 1, "edited", 3, 4, 5], (0, 1, 0, 5, 0, 0), 1, 1),
        ([0, 1, "priced", 3, 4, 5], (0, 0, 1, 5, 0, 0), 0, 1),
        ([1, 2, 3, 4, 5], (0, 0, 0, 5, 1, 0), 0, 1),
        ([5, 4, 3, 2, 1, 0], (0, 0, 0, 6, 0, 0), 0, 0),
    ],
    ids=["appended", "inserted on top", "edited", "priced", "deleted", "reordered"],
)
def test_only_what_changed_is_paid_and_written(
    records: list[Any], expected: tuple[int, ...], paid: int, operations: int
) -> None:
    """One record appended, inserted on top, edited in a field that the model reads or not, deleted."""
    nights = first_night(on_removed="delete")
    before = nights.paid.total(), nights.operations
    changed = {"new": record("new", "new"), "edited": record(2, "edited"), "priced": record(2, "text 2", price=1)}
    nights.put("a.jsonl", *(changed.get(each) or record(each, f"text {each}") for each in records))
    assert counts(nights.run()) == expected
    assert (nights.paid.total() - before[0], nights.operations - before[1]) == (paid, operations)


def test_nothing_changed() -> None:
    """There is no manifest and no claim, and no object is opened."""
    nights = first_night()
    head = nights.head()
    assert nights.is_done()
    assert nights.head() == head


def test_records_that_move_to_other_objects_cost_nothing() -> None:
    """Their rows move in the ledger only."""
    nights = first_night(on_removed="delete")
    before = nights.paid.total(), nights.operations
    nights.put("c.jsonl", *(record(number, f"text {number}") for number in range(11, -1, -1)))
    nights.delete("a.jsonl")
    nights.delete("b.jsonl")
    prepared = nights.run()
    assert counts(prepared) == (0, 0, 0, 12, 0, 0)
    assert prepared.manifest.shards == []
    assert (nights.paid.total(), nights.operations) == before
    assert list(nights.head().objects) == [f"{SOURCE}c.jsonl"]


def test_equal_texts_are_paid_once_and_follow_the_first() -> None:
    """A record with the new content key of another one goes to the shard that pays for it."""
    nights = Nights(max_records=2)
    nights.put("a.jsonl", *(record(number, text) for number, text in enumerate(["a", "b", "c", "a", "d"])))
    nights.put("b.jsonl", record(9, "c"))
    prepared = nights.prepare()
    assert [(shard.records, shard.documents) for shard in prepared.manifest.shards] == [(2, 3), (2, 3)]
    assert texts(nights, prepared) == ["a", "b", "a", "c", "d", "c"]
    assert prepared.manifest.counts.paid == 4
    nights.finish(prepared)
    assert nights.paid.total() == 4


def test_stored_predictions_need_no_job() -> None:
    """Their records go to shards of the same size, so that as many tasks as at the first load write them."""
    nights = first_night()
    nights.options["max_records"] = 5
    nights.index_uuid = "u2"
    prepared = nights.prepare()
    assert counts(prepared) == (12, 0, 0, 0, 0, 0)
    assert [(shard.job, shard.documents) for shard in prepared.manifest.shards] == [("", 5), ("", 5), ("", 2)]
    assert prepared.manifest.counts.paid == 0


def test_a_job_of_another_run_is_not_paid_again() -> None:
    """Its records go to a shard of that job, with its input."""
    nights = Nights()
    nights.put("a.jsonl", record(1, "a"), record(2, "b"))
    (job,) = nights.prepare().manifest.shards
    nights.put("b.jsonl", record(3, "b"), record(4, "c"))
    shards = nights.prepare().manifest.shards
    assert [(shard.job == job.job, shard.records, shard.documents) for shard in shards] == [(True, 2, 3), (False, 1, 1)]
    assert (shards[0].input, shards[0].bytes) == (job.input, job.bytes)


def test_of_two_pipelines_that_need_a_text_at_once_one_pays() -> None:
    """The other reserves nothing: it reads its records again, and waits for that job."""
    store = Changing()
    one, other = Nights(), Nights()
    one.objects = other.objects = store
    # Another scope that shares the prediction store.
    other.include, other.runs = ("b.jsonl",), 100
    one.put("a.jsonl", record(1, "a"), record(2, "b"))
    one.put("b.jsonl", record(3, "b"), record(4, "a"))
    paid = list[PreparedRun]()
    store.before[f"{SOURCE}a.jsonl"] = iter([None, lambda: paid.append(other.prepare())])
    (shard,) = one.prepare().manifest.shards
    (job,) = paid[0].manifest.shards
    assert (shard.job, shard.input, shard.documents) == (job.job, job.input, 4)
    assert list(one.store.head().open) == [job.job]


@pytest.mark.parametrize("submitted_before", [True, False])
def test_a_job_that_cannot_be_submitted_any_more_is_replaced(*, submitted_before: bool) -> None:
    """Its run died, and its input was removed; perhaps with the output of an earlier submission."""
    nights = Nights()
    nights.put("a.jsonl", record(1, "a"), record(2, "b"))
    (job,) = nights.prepare().manifest.shards
    nights.objects.delete(job.input)
    if submitted_before:
        removed = JobRecord(job.job, "n", "openai", "m", job.input, "s3://out/", 1.0, removed_at=2.0)
        save(nights.objects, f"{nights.layout.job(job.job)}/job.json", removed)
    prepared = nights.prepare()
    assert "the input of this job is missing" in prepared.manifest.remarks[0]
    assert nights.objects.head(job.input) is not None
    nights.finish(prepared)
    assert nights.paid.total() == 2


@pytest.mark.parametrize("limits", [{"max_records": 2}, {"max_bytes": 61}])
@pytest.mark.parametrize("changes", [{"end": End("FAILED", 1.0)}, {"refused": "too large", "restage": True}])
def test_a_job_that_failed_is_cut_again_below_lower_limits(limits: dict[str, int], changes: dict[str, Any]) -> None:
    """It may be too large for the service; with the same limits it is not paid for again without a request."""
    nights = Nights(max_records=4)
    nights.put("a.jsonl", *(record(number, f"text {number}") for number in range(4)))
    (job,) = nights.prepare().manifest.shards
    failed = JobRecord(job.job, "n", "sagemaker", "m", job.input, "s3://out/", 1.0, **changes)
    save(nights.objects, f"{nights.layout.job(job.job)}/job.json", failed)
    assert [shard.job for shard in nights.prepare().manifest.shards] == [job.job]
    prepared = nights.prepare(**limits)
    assert [shard.records for shard in prepared.manifest.shards] == [2, 2]
    nights.finish(prepared)
    assert (nights.paid.total(), nights.store.head().open) == (4, {})


def test_retention_keeps_an_old_job_that_a_run_needs() -> None:
    """No run has read its output; now one does, while another one cleans up."""
    nights, now = Nights(), 0.0
    nights.objects = MemoryObjects(lambda: now)
    nights.put("a.jsonl", record(1, "a"))
    (job,) = nights.prepare().manifest.shards
    ended = JobRecord(job.job, "n", "sagemaker", "m", job.input, "", 1.0, end=End("COMPLETED", 1.0), pipeline="p")
    save(nights.objects, f"{nights.layout.job(job.job)}/job.json", ended)
    now = 2 * MIN_RETENTION_S
    prepared = nights.prepare()
    assert [shard.job for shard in prepared.manifest.shards] == [job.job]
    retention = Retention(nights.objects, nights.layout, nights.store, outputs=lambda *_: [], unstage=lambda _: None)
    assert retention.run(1.0, now=now) == 0
    nights.finish(prepared)


@pytest.mark.parametrize(("max_bytes", "expected"), [(60, [2, 2, 1]), (59, [1] * 5), (10, [1] * 5)])
def test_shards_are_cut_by_bytes(max_bytes: int, expected: list[int]) -> None:
    """A shard takes at least one record."""
    nights = Nights(max_records=100, max_bytes=max_bytes)
    nights.put("a.jsonl", *(record(number, f"text {number}") for number in range(5)))
    shards = nights.prepare().manifest.shards
    assert [shard.records for shard in shards] == expected
    assert [shard.bytes for shard in shards] == [30 * records for records in expected]


class Changing(MemoryObjects):
    """A store whose objects change, or cannot be read, when they are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Any] = {}

    def open(self, uri: str, **arguments: Any) -> IO[bytes]:
        """Open an object."""
        if uri in self.before and (change := next(self.before[uri], None)):
            change()
        return super().open(uri, **arguments)


def changing(**options: Any) -> tuple[Nights, Changing]:
    """A pipeline after its first run, over such a store."""
    nights = Nights(**options)
    nights.objects = Changing()
    nights.put("a.jsonl", record(1, "a"), record(2, "b"))
    nights.run()
    nights.put("a.jsonl", record(1, "a"), record(2, "b2"))
    nights.put("b.jsonl", record(3, "c"))
    return nights, nights.objects


@pytest.mark.parametrize("opened", [0, 1])
def test_an_object_that_changes_meanwhile_is_left_to_the_next_run(opened: int) -> None:
    """Before its records are read, or between the two times that it is read."""
    nights, store = changing()
    change = lambda: nights.put("a.jsonl", record(1, "a3"), record(2, "b3"))  # noqa: E731 - one of two
    store.before[f"{SOURCE}a.jsonl"] = iter([None] * opened + [change])
    prepared = nights.run()
    assert texts(nights, prepared) == ["c"]
    assert prepared.manifest.counts.waiting == opened
    assert prepared.ledger.unread == [f"{SOURCE}a.jsonl"]
    assert nights.head().objects[f"{SOURCE}a.jsonl"].etag == ""
    assert {each["text"] for each in nights.index.values()} == {"a", "b", "c"}
    assert texts(nights, nights.run()) == ["a3", "b3"]
    assert nights.is_done()


@pytest.mark.parametrize("opened", [0, 1])
def test_an_object_that_is_deleted_meanwhile_is_left_to_the_next_run(opened: int) -> None:
    """It is no absence yet."""
    nights, store = changing(on_removed="delete")
    store.before[f"{SOURCE}a.jsonl"] = iter([None] * opened + [lambda: nights.delete("a.jsonl")])
    assert texts(nights, nights.run()) == ["c"]
    assert len(nights.index) == 3
    prepared = nights.run()
    assert sorted(nights.deleted(prepared)) == ["1", "2"]


def test_a_new_object_that_changes_meanwhile_is_not_an_empty_one() -> None:
    """The run commits nothing of it, and the next run reads it."""
    nights, store = Nights(), Changing()
    nights.objects = store
    nights.put("a.jsonl", record(1, "a"))
    store.before[f"{SOURCE}a.jsonl"] = iter([lambda: nights.put("a.jsonl", record(1, "b"))])
    assert nights.run().manifest.shards == []
    assert nights.head().objects == {}
    assert texts(nights, nights.run()) == ["b"]


def test_an_object_that_cannot_be_read_fails_the_run() -> None:
    """It is never absence."""
    nights, store = changing()

    def refuse() -> None:
        raise ConfigError("access denied")

    store.before[f"{SOURCE}a.jsonl"] = iter([refuse])
    with pytest.raises(ConfigError, match="access denied"):
        nights.prepare()


def test_another_run_that_commits_meanwhile_is_noticed() -> None:
    """The comparison is of rows that are not the ledger's any more."""
    nights, store = changing()
    store.before[f"{SOURCE}b.jsonl"] = iter([nights.run])
    with pytest.raises(RetriableError, match="another run committed"):
        nights.prepare()
    assert nights.run().manifest.shards == []
    assert nights.is_done()


def test_records_that_are_too_few_for_a_job_wait() -> None:
    """The other records of their object are written, and not written again."""
    nights = Nights("bedrock", max_records=500, max_bytes=1_000_000)
    records = [record(number, f"text {number}") for number in range(120)]
    nights.put("a.jsonl", *records)
    nights.run()
    records += [record(number, f"text {number}") for number in range(120, 125)]
    records[0] = record(0, "text 0", price=1)
    nights.put("a.jsonl", *records)
    prepared = nights.run()
    assert texts(nights, prepared) == ["text 0"]
    assert "5 records wait for a later run" in prepared.manifest.remarks[0]
    found = prepared.manifest.counts
    assert (found.new, found.other_changed, found.waiting, found.paid) == (5, 1, 5, 0)
    assert nights.prepare().manifest.counts.waiting == 5
    nights.put("b.jsonl", *(record(number, f"text {number}") for number in range(200, 295)))
    prepared = nights.run()
    assert prepared.manifest.counts.paid == 100
    assert len(texts(nights, prepared)) == 100
    assert nights.is_done()


def in_real_time(below: int, **options: Any) -> Nights:
    """A pipeline at Bedrock that predicts fewer records than `below` in real time."""
    return Nights(
        "bedrock", **{"max_records": 500, "max_bytes": 1_000_000, "realtime": RealtimeLimit(below), **options}
    )


@pytest.mark.parametrize(("count", "expected"), [(1, [1]), (99, [99]), (100, []), (150, [])])
def test_fewer_records_than_the_limit_are_predicted_in_real_time(count: int, expected: list[int]) -> None:
    """Also those of a new source; equal texts are one record."""
    nights = in_real_time(100)
    nights.put("a.jsonl", *(record(number, f"text {number}") for number in range(count)), record("twin", "text 0"))
    prepared = nights.run()
    assert [shard.records for shard in prepared.manifest.shards if shard.realtime] == expected
    assert prepared.manifest.counts.paid == count
    assert nights.is_done()


def test_shards_in_real_time_are_small() -> None:
    """One task sends the requests of a shard one after another."""
    nights = in_real_time(1_000)
    nights.put("a.jsonl", *(record(number, f"text {number}") for number in range(250)))
    assert [(shard.records, shard.realtime) for shard in nights.prepare().manifest.shards] == [
        (100, True),
        (100, True),
        (50, True),
    ]


def test_a_dry_run_tells_what_is_predicted_in_real_time() -> None:
    """Its records are no job."""
    nights = in_real_time(100)
    nights.put("a.jsonl", record(1, "a"), record(2, "b"))
    plan = RunPlan.of(nights.objects, nights.layout, nights.prepare(dry_run=True).manifest)
    assert (plan.jobs, plan.requests) == (0, 2)
    assert "2 records are predicted in real time, one request each" in plan.lines()


@pytest.mark.parametrize("below", [0, 100])
def test_a_run_finishes_the_requests_of_one_that_was_killed(below: int) -> None:
    """It finds the shard that is open, which is too small for a job also if the limit was lowered meanwhile."""
    nights = in_real_time(100)
    nights.put("a.jsonl", record(1, "a"), record(2, "b"))
    (killed,) = nights.prepare().manifest.shards
    (shard,) = nights.prepare(realtime=RealtimeLimit(below)).manifest.shards
    assert (shard.job, shard.realtime) == (killed.job, True)


def test_why_the_connector_cannot_do_it_is_told() -> None:
    """The records wait, as without a limit."""
    nights = in_real_time(0, realtime=RealtimeLimit(problem="the connector has no predict action"))
    nights.put("a.jsonl", *(record(number, f"text {number}") for number in range(100)))
    nights.run()
    nights.put("b.jsonl", record("new", "new"))
    (remark,) = nights.prepare().manifest.remarks
    assert "1 records wait for a later run, because a job of bedrock has at least 100 records, and fewer" in remark
    assert remark.endswith("cannot be predicted in real time: the connector has no predict action")


@pytest.mark.parametrize(("count", "expected"), [(100, [100]), (199, [199]), (200, [100, 100]), (250, [100, 150])])
def test_the_last_shard_is_never_too_small(count: int, expected: list[int]) -> None:
    """The records that are too few for one more job go to the last one."""
    nights = Nights("bedrock", max_records=100, max_bytes=1_000_000)
    nights.put("a.jsonl", *(record(number, f"text {number}") for number in range(count)))
    prepared = nights.prepare()
    assert [shard.records for shard in prepared.manifest.shards] == expected
    with nights.objects.open(prepared.manifest.shards[-1].input) as stream:
        ids = [json.loads(line)["recordId"] for line in stream]
    assert ids == [f"r{number:010d}" for number in range(expected[-1])]


@pytest.mark.parametrize(("max_records", "max_bytes"), [(500, 2_000), (20, 1_000_000)])
def test_a_shard_is_never_too_small_for_a_job(max_records: int, max_bytes: int) -> None:
    """Limits of a pipeline that leave fewer records than the service takes would leave them without a job for ever."""
    nights = Nights("bedrock", max_records=max_records, max_bytes=max_bytes)
    nights.put("a.jsonl", *(record(number, f"text {number} {'x' * 100}") for number in range(250)))
    prepared = nights.prepare()
    assert [shard.records for shard in prepared.manifest.shards] == [100, 150]
    assert prepared.manifest.counts.waiting == 0


def test_a_new_source_with_too_few_records_is_refused() -> None:
    """There is nothing that could be written without a job."""
    nights = Nights("bedrock", max_records=100, max_bytes=1_000_000)
    nights.put("a.jsonl", record(1, "a"))
    with pytest.raises(ConfigError, match="the source has 1 records, but a job of the service needs at least 100"):
        nights.prepare()


def test_force_pays_for_everything_again() -> None:
    """The jobs are those of the first run, so their new submissions replace the answers."""
    nights = first_night()
    prepared = nights.prepare(force=True)
    assert counts(prepared) == (0, 0, 12, 0, 0, 0)
    assert [shard.records for shard in prepared.manifest.shards] == [3, 3, 3, 3]
    assert prepared.manifest.counts.paid == 12


def test_rebuild_writes_everything_and_pays_nothing() -> None:
    """A record whose prediction is not stored is left to the next run, which pays for it."""
    nights = first_night()
    nights.put("c.jsonl", record("new", "new"), record("old", "text 1"))
    operations = nights.operations
    prepared = nights.run(rebuild=True)
    assert counts(prepared) == (2, 0, 12, 0, 0, 0)
    assert (nights.operations - operations, nights.paid.total()) == (13, 12)
    assert (
        "1 records are left to the next run, because their predictions are not in the store"
        in prepared.manifest.remarks
    )
    assert texts(nights, nights.run()) == ["new"]
    assert nights.is_done()


def test_a_trial_changes_no_head_and_deletes_nothing() -> None:
    """Its records are new, whatever the ledger has; their predictions are not paid for again."""
    nights = first_night(on_removed="delete")
    nights.delete("b.jsonl")
    nights.put("a.jsonl", record(0, "text 0"), record("x", "x"), record("y", "y"))
    head = nights.head()
    prepared = nights.prepare(is_trial=True, limit=2)
    assert counts(prepared) == (2, 0, 0, 0, 0, 0)
    assert [(bool(shard.job), shard.documents) for shard in prepared.manifest.shards] == [(False, 1), (True, 1)]
    assert prepared.manifest.claim is None
    assert prepared.manifest.version > head.claim.version
    nights.finish(prepared)
    assert nights.head() == head


def test_a_dry_run_shows_the_same_and_writes_nothing() -> None:
    """Also which records would wait."""
    nights = first_night(on_removed="delete")
    nights.put("a.jsonl", record(0, "text 0"), record(1, "other"), record("x", "x"), b"{oops")
    before = {item.uri: item.etag for item in nights.objects.list("s3://")}
    dry = nights.prepare(dry_run=True, max_dead_letters="50%")
    assert {item.uri: item.etag for item in nights.objects.list("s3://")} == before
    assert [letter.line for letter in dry.samples] == [4]
    plan = RunPlan.of(nights.objects, nights.layout, dry.manifest)
    lines = list(plan.lines())
    assert "4 records read, 1 of them dead letters; 1 of 2 objects changed" in lines[0]
    assert lines[1] == (
        "1 new, 1 input changed, 0 other changed, 1 unchanged, 0 duplicate, 0 tombstone; 0 of 12 documents removed"
    )
    assert lines[2] == "2 records to pay for; 0 have a stored prediction, 0 wait"
    assert plan.jobs == 1
    real = nights.prepare(max_dead_letters="50%")
    differences = {"deleted", "paid"}
    for name in msgspec.structs.fields(type(dry.manifest.counts)):
        if name.name not in differences:
            assert getattr(dry.manifest.counts, name.name) == getattr(real.manifest.counts, name.name)


def test_mass_removal_is_refused_before_anything_is_written() -> None:
    """An override allows it for one run."""
    nights = first_night(120, on_removed="delete")
    nights.delete("b.jsonl")
    before = {item.uri: item.etag for item in nights.objects.list("s3://")}
    with pytest.raises(ConfigError, match="120 of 240 documents would be deleted"):
        nights.prepare()
    assert {item.uri: item.etag for item in nights.objects.list("s3://")} == before
    assert "the run would be refused: 120 of 240" in nights.prepare(dry_run=True).manifest.remarks[0]
    prepared = nights.run(max_removed="50%")
    assert prepared.manifest.shards[-1].id == DELETIONS
    assert (prepared.manifest.counts.deleted, len(nights.index)) == (120, 120)


def test_removed_documents_are_kept_by_default() -> None:
    """They are counted, and a remark says so."""
    nights = first_night(120)
    nights.delete("b.jsonl")
    prepared = nights.run()
    assert prepared.manifest.shards == []
    (remark,) = prepared.manifest.remarks
    assert "120 documents stay in the index, though their records left the source; source.on_removed" in remark
    assert (prepared.manifest.counts.removed, len(nights.index)) == (120, 240)


def test_an_empty_listing_removes_nothing() -> None:
    """Nor does it open anything."""
    nights = first_night(on_removed="delete")
    nights.delete("a.jsonl")
    nights.delete("b.jsonl")
    assert nights.is_done()


def test_deletions_need_the_ids_of_the_records() -> None:
    """Without them, the documents are not known."""
    nights = Nights(on_removed="delete")
    nights.request = msgspec.structs.replace(nights.request, field_map={"vector": "prediction"})
    with pytest.raises(ConfigError, match="on_removed: delete needs the id of each document in its record, but no _id"):
        nights.prepare()


def test_another_field_map_writes_all_documents_from_the_store() -> None:
    """Nothing is paid; then nothing is changed."""
    nights = first_night()
    nights.request = msgspec.structs.replace(nights.request, field_map={**nights.request.field_map, "title": "$.title"})
    assert counts(nights.run()) == (0, 0, 12, 0, 0, 0)
    assert nights.paid.total() == 12
    assert nights.is_done()


def test_a_record_that_becomes_unreadable_keeps_its_document() -> None:
    """It is a dead letter, and no removal; mended, it is written."""
    nights = first_night(on_removed="delete", max_dead_letters="50%")
    records = [record(number, f"text {number}") for number in range(6)]
    nights.put("a.jsonl", *records[:5], {"id": "5"})
    prepared = nights.run()
    assert counts(prepared) == (0, 0, 0, 5, 0, 0)
    assert (prepared.manifest.counts.dead_letters, prepared.manifest.counts.kept) == (1, 12)
    assert nights.index["5"]["text"] == "text 5"
    entry = nights.head().objects[f"{SOURCE}a.jsonl"]
    (rows,) = RowsReader(nights.objects).read(entry)
    assert rows["state"].to_pylist() == [RecordState.INDEXED] * 5 + [RecordState.DEAD]
    nights.put("a.jsonl", *records[:5], record(5, "mended"))
    assert counts(nights.run()) == (0, 1, 0, 5, 0, 0)
    assert nights.index["5"]["text"] == "mended"


def test_in_append_mode_absence_means_nothing() -> None:
    """Of records with one id, the one in the object that changed last counts, in any order of runs."""
    nights = Nights(mode="append")
    nights.put("a.jsonl", record(1, "a"), record(2, "b"))
    nights.run()
    nights.delete("a.jsonl")
    nights.put("b.jsonl", record(2, "c"))
    prepared = nights.run()
    assert counts(prepared) == (0, 1, 0, 0, 0, 0)
    assert {each["text"] for each in nights.index.values()} == {"a", "c"}
    assert set(nights.head().objects) == {f"{SOURCE}a.jsonl", f"{SOURCE}b.jsonl"}


def test_lost_predictions_are_paid_again() -> None:
    """Exactly those of a segment that was lost, when a run needs them."""
    nights = first_night()
    name, lost = next(iter(nights.store.head().segments.items()))
    nights.store.drop(name)
    nights.index_uuid = "u2"
    prepared = nights.prepare()
    assert 0 < prepared.manifest.counts.paid == lost.rows < 12


def test_passthrough_submits_objects_with_new_texts() -> None:
    """The object is the unit of a job: it is submitted unchanged, and all its lines are answered."""
    nights = Nights(passthrough=True, max_records=10)
    nights.put("a.jsonl", record(1, "a"), record(2, "b"), record(3, "a"))
    nights.put("b.jsonl", record(4, "a"), record(5, "b"))
    prepared = nights.run()
    uri = f"{SOURCE}a.jsonl"
    (shard,) = prepared.manifest.shards
    assert (shard.input, shard.records, shard.documents) == (uri, 3, 5)
    assert shard.etag == present(nights.objects.head(uri)).etag
    nights.put("a.jsonl", record(1, "a"), record(2, "c"), record(3, "a"))
    nights.put("b.jsonl", record(4, "b", price=1), record(5, "b"))
    prepared = nights.run()
    assert counts(prepared) == (0, 2, 0, 3, 0, 0)
    assert [(shard.input, shard.records, shard.documents) for shard in prepared.manifest.shards] == [
        (uri, 3, 1),
        ("", 0, 1),
    ]
    assert nights.is_done()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a": [record(1, "a"), b"{oops"]}, r"a line 2: not JSON.*use prepare: true"),
        ({"a": [record(1, "a"), b""]}, "a: a line is empty"),
        ({"a": [record(number, "a") for number in range(4)]}, "4 records, .* a job accepts 1 to 3 records"),
        ({"a": [record(1, "a" * 200)]}, "1 records, .* at most 150 bytes"),
        ({"a": [record(1, "a")], "a.bak": [record(2, "b")]}, "a.bak starts with this URI"),
    ],
)
def test_an_object_that_is_no_job_input_is_refused(contents: dict[str, list[Any]], message: str) -> None:
    """Its lines can neither be changed nor left out."""
    nights = Nights(passthrough=True, max_records=3, max_bytes=150)
    for name, lines in contents.items():
        nights.put(name, *lines)
    with pytest.raises(ConfigError, match=message):
        nights.prepare()
