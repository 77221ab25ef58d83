"""What batch_predict and repair share: who holds a slot, and how a wait for one ends after errors."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from airflow.triggers.base import TaskFailedEvent

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, NotFound, RetriableError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.poll_policy import PollPolicy
from opensearch_batch.core.jobs.slots import Slot
from opensearch_batch.core.jobs.submission import Submission
from opensearch_batch.core.jobs.waiters import Waiter, Waiters
from opensearch_batch.core.opensearch.ml_commons import Model
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.job import End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.operators import submission
from opensearch_batch.operators.batch_predict import OpenSearchBatchPredictOperator
from opensearch_batch.triggers import submission as trigger
from opensearch_batch.triggers.job_wait import JobWait, SubmittedJob
from opensearch_batch.triggers.ml_task import MLTaskTrigger
from opensearch_batch.triggers.submission import SubmissionTrigger, job_slots
from tests.stored import present
from tests.waiting import WAIT_S

SHARED: dict[str, Any] = {
    "service": "openai",
    "poll_every_s": 0.01,
    "poll_at_most_s": 0.01,
    "deadline_s": 7 * 86_400,
    "opensearch_conn_id": "o",
    "aws_conn_id": "a",
    "ai_conn_id": None,
}


def record(end: End | None = None, *, ml_task_id: str | None = "t", intended_at: float = 0.0) -> JobRecord:
    """Make a job's record."""
    return JobRecord("k", "n", "openai", "m", "in", "out", intended_at, ml_task_id=ml_task_id, end=end)


@pytest.mark.parametrize(
    ("holds", "is_taken_over"),
    [
        (record(), False),
        (record(End("COMPLETED", 4e9)), True),
        # It is about to be paid again; or its answer was lost; or it is on its way to its first submission.
        (record(End("FAILED", 1.0)), False),
        (record(ml_task_id=None), False),
        (None, False),
    ],
)
def test_who_holds_a_slot(store: S3Objects, bucket: str, holds: JobRecord | None, *, is_taken_over: bool) -> None:
    """A job holds its slot from before its submission until its end."""
    one, other = f"s3://{bucket}/jobs/one", f"s3://{bucket}/jobs/other"
    if holds is not None:
        assert JobRecords(store, one).write(holds, etag=None)
    assert job_slots(store, f"s3://{bucket}/slots", 1).acquire(one)
    assert job_slots(store, f"s3://{bucket}/slots", 1).acquire(other) == ({other} if is_taken_over else set())


@pytest.mark.parametrize("error", [ConfigError("the bucket is gone"), RetriableError("away")])
def test_an_error_ends_the_wait_for_a_slot(monkeypatch: pytest.MonkeyPatch, error: BatchError) -> None:
    """The wait ends, so that the task reports the error: at once if it is final, after a while if it may pass."""
    tries = list[int]()

    def refuse(_: SubmissionTrigger) -> tuple[int, bool]:
        tries.append(1)
        raise error

    monkeypatch.setattr(SubmissionTrigger, "_try_acquire", refuse)
    monkeypatch.setattr(trigger, "SLOT_INTERVAL_S", 0.01)
    monkeypatch.setattr(trigger, "PATIENCE_S", 0.1)
    waiting = SubmissionTrigger(
        jobs=[], holders=["s3://b/k"], slots=f"s3://b/{error}", max_slots=1, pause_s=0.0, since=7.0, **SHARED
    )

    async def events() -> list[object]:
        return [event.payload async for event in waiting.run()]

    assert asyncio.run(events()) == [{"since": 7.0}]
    assert (len(tries) == 1) == isinstance(error, ConfigError)


@pytest.mark.parametrize(
    ("acquired", "tries"), [([(0, False), (1, False), (3, False)], 3), ([(0, True)], 1), ([(1, False)] * 99, 4)]
)
def test_a_wait_gathers_slots_for_a_while(
    monkeypatch: pytest.MonkeyPatch, acquired: list[tuple[int, bool]], tries: int
) -> None:
    """To start a task for each slot would take longer than to submit the job; but the first job does not wait long."""
    now, answers, asked = [1.0], iter(acquired), list[int]()

    def try_acquire(_: SubmissionTrigger) -> tuple[int, bool]:
        asked.append(1)
        return next(answers)

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(SubmissionTrigger, "_try_acquire", try_acquire)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(asyncio, "sleep", sleep)
    waiting = SubmissionTrigger(jobs=[], holders=["a", "b", "c"], slots=f"s3://b/{tries}", max_slots=3, **SHARED)
    asyncio.run(waiting._acquire_slots())  # noqa: SLF001 - the wait without its jobs
    assert len(asked) == tries


@pytest.fixture
def submits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[OpenSearchBatchPredictOperator, LocalFiles]:
    """A stage that submits, with a folder as store, and a cluster that is not called."""
    store, ml = LocalFiles(tmp_path), SimpleNamespace(model=lambda _: Model("m", {}))
    monkeypatch.setattr(submission, "object_storage", lambda _: store)
    monkeypatch.setattr(submission, "OpenSearchMLHook", lambda _: SimpleNamespace(ml=ml))
    monkeypatch.setattr(submission, "client_of", lambda *_, **__: None)
    stage = OpenSearchBatchPredictOperator(
        task_id="batch_predict", shards={}, work_prefix="s3://work", service="openai", model_id="m"
    )
    return stage, store


def test_a_task_takes_slots_for_its_next_jobs(
    submits: tuple[OpenSearchBatchPredictOperator, LocalFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most a quarter of all, for jobs that are not submitted; those of jobs that it cannot submit are given back."""
    stage, store = submits
    stage.max_jobs_in_flight = 12
    layout, shards = Layout("s3://work", "p"), [Shard(f"{n:04d}", f"k{n}", "in", 1, 1) for n in range(6)]
    assert JobRecords(store, layout.job("k1")).write(record(), etag=None)

    def held() -> list[str]:
        slots = job_slots(store, layout.slots("openai", "m"), 12)
        return sorted(slot.holder.rpartition("/")[2] for _, slot in slots.held())

    def fails(*_: object) -> object:
        assert held() == ["k0", "k2", "k3"]
        raise ConfigError("refused")

    monkeypatch.setattr(Submission, "run", fails)
    with pytest.raises(ConfigError, match="refused"):
        stage.submit(shards[0], layout, ResubmitRequest(), following=shards[1:])
    assert held() == []


def test_nothing_is_submitted_to_a_store_that_ignores_conditions(
    submits: tuple[OpenSearchBatchPredictOperator, LocalFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs would both write the intent, and both pay."""
    stage, store = submits

    def create(uri: str, content: bytes) -> bool:
        store.write(uri, content)
        return True

    monkeypatch.setattr(store, "create", create)
    with pytest.raises(ConfigError, match="the store ignores If-None-Match"):
        stage.submit(Shard("0000", "k", "in", 1, 1), Layout("s3://work", "p"), ResubmitRequest())
    assert JobRecords(store, "s3://work/jobs/k").read() is None


OTHER = "s3://work/jobs/other"


class Leaked:
    """One slot, held by a job that was submitted long ago and whose `poll` was stopped; the service knows its state."""

    def __init__(self, store: LocalFiles, *, held_for_s: float) -> None:
        self.store = store
        self.status: dict[str, str] | None = {"status": "in_progress"}
        self.folder = Layout("s3://work", "p").slots("openai", "m")
        self.records = JobRecords(store, OTHER)
        known = msgspec.structs.replace(record(ml_task_id=None), remote_job={"id": "batch"})
        assert self.records.write(known, etag=None)
        save(store, f"{self.folder}/0000.json", Slot(OTHER, time.time() - held_for_s))

    def describe(self, record: JobRecord) -> dict[str, str]:
        """Answer as the service."""
        if self.status is None:
            raise NotFound(f"no job {record.name}")
        return self.status

    find = staticmethod(lambda _: None)

    def takes(self) -> bool:
        """Whether the wait of another job ends."""
        waiting = SubmissionTrigger(
            jobs=[], holders=["s3://work/jobs/k"], slots=self.folder, max_slots=1, stalled_after_s=7 * 86_400, **SHARED
        )
        acquired, is_stalled = waiting._try_acquire()  # noqa: SLF001 - what the trigger repeats
        return is_stalled or acquired == 1


@pytest.fixture
def leaked(submits: tuple[OpenSearchBatchPredictOperator, LocalFiles], monkeypatch: pytest.MonkeyPatch) -> Leaked:
    """It is not older than its deadline."""
    made = Leaked(submits[1], held_for_s=1000.0)
    monkeypatch.setattr(trigger, "shared_object_storage", lambda _: made.store)
    monkeypatch.setattr(JobHandle, "_objects", lambda _: made.store)
    monkeypatch.setattr(JobHandle, "_client", lambda *_: made)
    return made


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ({"status": "completed", "output_file_id": "f"}, "COMPLETED"),
        ({"status": "failed"}, "FAILED"),
        (None, "LOST"),
        ({"status": "in_progress"}, None),
        ({"status": "a new state"}, None),
    ],
)
def test_the_service_is_asked_for_a_job_that_nobody_waits_for(
    leaked: Leaked, status: dict[str, str] | None, end: str | None
) -> None:
    """Its end is recorded, which frees its slot; a job that runs keeps it."""
    leaked.status = status
    assert leaked.takes() == (end is not None)
    found = present(leaked.records.read()).end
    assert (found and found.state) == end


def test_a_job_that_a_run_waits_for_is_left_to_that_run(leaked: Leaked) -> None:
    """Its `poll` asks, at its own pace."""
    leaked.status = {"status": "failed"}
    Waiters(leaked.store, OTHER, clock=time.time).register(Waiter("d", "r", "poll", -1, None))
    assert not leaked.takes()
    assert present(leaked.records.read()).end is None


def test_a_task_that_waits_for_a_slot_waits_for_its_own_jobs(
    submits: tuple[OpenSearchBatchPredictOperator, LocalFiles], leaked: Leaked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their `poll` runs only after this task, so nothing else would free their slots."""
    monkeypatch.setattr(trigger, "SLOT_INTERVAL_S", 0.01)
    leaked.status = {"status": "completed", "output_file_id": "f"}
    save(leaked.store, f"{leaked.folder}/0000.json", Slot(OTHER, time.time()))
    stage, _ = submits
    stage.max_jobs_in_flight = 1
    waiting = stage.submit(
        Shard("0001", "k", "in", 1, 1),
        Layout("s3://work", "p"),
        ResubmitRequest(),
        submitted=[SubmittedJob(None, OTHER)],
    )
    assert isinstance(waiting, SubmissionTrigger)
    again = SubmissionTrigger(**{**waiting.serialize()[1], "poll_every_s": 0.01, "poll_at_most_s": 0.01})

    async def events() -> list[object]:
        return [event.payload async for event in again.run()]

    assert asyncio.run(asyncio.wait_for(events(), WAIT_S)) == [{"since": None}]
    assert present(present(leaked.records.read()).end).state == "COMPLETED"
    assert [slot.holder for _, slot in job_slots(leaked.store, leaked.folder, 1).held()] == ["s3://work/jobs/k"]


def test_slots_that_are_never_freed_fail_the_task(
    leaked: Leaked, submits: tuple[OpenSearchBatchPredictOperator, LocalFiles]
) -> None:
    """After deadline_s and an hour, with the holders' names; before that the task waits."""
    stage, store = submits
    stage.max_jobs_in_flight = 1
    shard, layout = Shard("0000", "k", "in", 1, 1), Layout("s3://work", "p")
    assert isinstance(stage.submit(shard, layout, ResubmitRequest()), SubmissionTrigger)
    save(store, f"{leaked.folder}/0000.json", Slot(OTHER, time.time() - 7 * 86_400 - 3601))
    assert leaked.takes()
    with pytest.raises(
        FatalError, match=f"no slot .* became free for 169 h; {leaked.folder}/0000.json is held by {OTHER}"
    ):
        stage.submit(shard, layout, ResubmitRequest())
    leaked.status = {"status": "failed"}
    with pytest.raises(AttributeError, match="stage"):
        # It has the slot and goes on to the service, which is no part of this test.
        stage.submit(shard, layout, ResubmitRequest())


def test_a_state_that_nobody_knows_ends_the_wait(leaked: Leaked, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the patience for failed polls; the job keeps running, and clearing poll waits again."""
    leaked.status = {"status": "a new state"}
    waiting = MLTaskTrigger(jobs=[{"task_id": None, "job": OTHER}], **SHARED)
    monkeypatch.setattr(JobWait, "_poll_policy", lambda *_: PollPolicy(time.time(), 0.01, 0.01, patience_s=0.2))
    errors = list[str]()
    monkeypatch.setattr(
        MLTaskTrigger, "log", SimpleNamespace(error=lambda *of: errors.append(str(of[-1])), warning=print)
    )

    async def events() -> list[object]:
        return [event async for event in waiting.run()]

    (event,) = asyncio.run(asyncio.wait_for(events(), WAIT_S))
    assert isinstance(event, TaskFailedEvent)
    assert "openai reports the state 'a new state', which this version does not know; clear poll" in errors[0]
    assert present(leaked.records.read()).end is None
