"""What batch_predict and repair share: who holds a slot, and how a wait for one ends after errors."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from opensearch_batch.core.errors import BatchError, ConfigError, RetriableError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.opensearch.ml_commons import Model
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.job import End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.operators import submission
from opensearch_batch.operators.batch_predict import OpenSearchBatchPredictOperator
from opensearch_batch.triggers import submission as trigger
from opensearch_batch.triggers.submission import SubmissionTrigger, job_slots


def record(end: End | None = None, *, ml_task_id: str | None = "t", intended_at: float = 0.0) -> JobRecord:
    """Make a job's record."""
    return JobRecord("k", "n", "openai", "m", "in", "out", intended_at, ml_task_id=ml_task_id, end=end)


@pytest.mark.parametrize(
    ("holds", "is_taken_over"),
    [
        (record(), False),
        (record(End("COMPLETED", time.time() + 3600)), True),
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
        assert JobRecords(store, one).write(holds, over=None)
    assert job_slots(store, f"s3://{bucket}/slots", 1).acquire(one)
    assert job_slots(store, f"s3://{bucket}/slots", 1).acquire(other) == is_taken_over


@pytest.mark.parametrize("error", [ConfigError("the bucket is gone"), RetriableError("away")])
def test_an_error_ends_the_wait_for_a_slot(monkeypatch: pytest.MonkeyPatch, error: BatchError) -> None:
    """The wait ends, so that the task reports the error: at once if it is final, after a while if it may pass."""
    tries = list[int]()

    def refuse(_: SubmissionTrigger) -> bool:
        tries.append(1)
        raise error

    monkeypatch.setattr(SubmissionTrigger, "_take", refuse)
    monkeypatch.setattr(trigger, "SLOT_INTERVAL_S", 0.01)
    monkeypatch.setattr(trigger, "PATIENCE_S", 0.1)
    waiting = SubmissionTrigger(
        holder="s3://b/k", slots=f"s3://b/{error}", max_slots=1, pause_s=0.0, since=7.0, aws_conn_id="aws_default"
    )

    async def events() -> list[object]:
        return [event.payload async for event in waiting.run()]

    assert asyncio.run(events()) == [{"since": 7.0}]
    assert (len(tries) == 1) == isinstance(error, ConfigError)


@pytest.fixture
def submits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[OpenSearchBatchPredictOperator, LocalFiles]:
    """A stage that submits, with a folder as store, and a cluster that is not called."""
    store, ml = LocalFiles(tmp_path), SimpleNamespace(model=lambda _: Model("m", {}))
    monkeypatch.setattr(submission, "object_storage", lambda _: store)
    monkeypatch.setattr(submission, "OpenSearchMLHook", lambda _: SimpleNamespace(ml=ml))
    monkeypatch.setattr(submission, "client_of", lambda *_, **__: None)
    stage = OpenSearchBatchPredictOperator(
        task_id="batch_predict", shard={}, work_prefix="s3://work", service="openai", model_id="m"
    )
    return stage, store


def test_a_reused_job_is_marked_as_taken(submits: tuple[OpenSearchBatchPredictOperator, LocalFiles]) -> None:
    """A job that is reused is marked as taken, so no other run removes its outputs before this run ingests them."""
    stage, store = submits
    assert JobRecords(store, "s3://work/jobs/k").write(record(End("COMPLETED", 1.0)), over=None)
    done = stage.submit(Shard("0000", "in", "k", 1, 1), Layout("s3://work", "p"), ResubmitRequest())
    assert isinstance(done, tuple)
    assert done[0] == "reuse"
    assert store.head("s3://work/jobs/k/in_use.json") is not None


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
        stage.submit(Shard("0000", "in", "k", 1, 1), Layout("s3://work", "p"), ResubmitRequest())
    assert JobRecords(store, "s3://work/jobs/k").read() is None
