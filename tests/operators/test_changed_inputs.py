"""A job over a user's own object is paid for, and its output used, only if the object is unchanged since prepare."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.job_records import JobRecords, bad_end_message
from opensearch_batch.core.opensearch.ml_commons import Model
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.job import Accepted, End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.operators import submission
from opensearch_batch.operators.batch_predict import OpenSearchBatchPredictOperator
from opensearch_batch.services.registry import adapter_of
from tests.stored import present

INPUT = "s3://in/a.jsonl"
FOLDER = "s3://work/jobs/k"
COMPLETED = End("COMPLETED", 2.0)


class Job:
    """One job over a user's object, from its submission to its end."""

    def __init__(self, store: LocalFiles) -> None:
        self.store = store
        self.paid: list[dict[str, Any]] = []
        store.write(INPUT, b"v1\n")
        self.shard = self.prepared()

    def prepared(self) -> Shard:
        """Return the shard as prepare finds it now."""
        return Shard("0000", "k", INPUT, 1, 3, etag=present(self.store.head(INPUT)).etag)

    def ml(self, _: str) -> SimpleNamespace:
        """Return an ML Commons that accepts every job."""

        def pay(_: str, parameters: dict[str, Any]) -> Accepted:
            self.paid.append(parameters)
            return Accepted("t")

        model = Model("m", dict(adapter_of("sagemaker").example_parameters))
        return SimpleNamespace(ml=SimpleNamespace(model=lambda _: model, batch_predict=pay))

    def submit(self, asked: ResubmitRequest = ResubmitRequest()) -> JobRecord:  # noqa: B008 - frozen
        """Submit the job."""
        batch_predict = OpenSearchBatchPredictOperator(
            task_id="batch_predict", shards={}, work_prefix="s3://work", service="sagemaker", model_id="m"
        )
        done = batch_predict.submit(self.shard, Layout("s3://work", "p"), asked)
        assert isinstance(done, tuple)
        return done[1]

    def conclude(self, record: JobRecord) -> End:
        """Record that it completed."""
        job = JobHandle(FOLDER, "sagemaker", "o", "a", None)
        return job.conclude(record, COMPLETED, cancel=False)

    def recorded(self) -> JobRecord:
        """Return its record."""
        return present(JobRecords(self.store, FOLDER).load())[0]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Job:
    """A job that is prepared and not submitted."""
    made = Job(LocalFiles(tmp_path))
    monkeypatch.setattr(submission, "object_storage", lambda _: made.store)
    monkeypatch.setattr(submission, "OpenSearchMLHook", made.ml)
    monkeypatch.setattr(submission, "client_of", lambda *_, **__: SimpleNamespace(stage=lambda *_: {}))
    monkeypatch.setattr(JobHandle, "_objects", lambda _: made.store)
    return made


def test_an_unchanged_input_is_submitted_and_used(job: Job) -> None:
    """An unchanged input is submitted; one that is deleted after its job read it does no harm."""
    record = job.submit()
    assert (len(job.paid), job.recorded().input_etag) == (1, job.shard.etag)
    job.store.delete(INPUT)
    assert job.conclude(record) == COMPLETED


@pytest.mark.parametrize(("content", "reason"), [(b"v2\n", "changed"), (None, "was deleted")])
def test_a_changed_input_is_not_submitted(job: Job, content: bytes | None, reason: str) -> None:
    """A changed or deleted input is not submitted, and leaves no record that would block the next run."""
    job.store.delete(INPUT)
    if content is not None:
        job.store.write(INPUT, content)
    with pytest.raises(
        FatalError, match=rf"a\.jsonl {reason} since prepare read it; no job was submitted; clear prepare"
    ):
        job.submit()
    assert (job.paid, JobRecords(job.store, FOLDER).load()) == ([], None)


def test_a_job_whose_input_changed_is_unusable(job: Job) -> None:
    """A job whose input changed while it ran ends UNUSABLE; a clear submits it again only for the original input."""
    record = job.submit()
    job.store.write(INPUT, b"v2\n")
    end = job.conclude(record)
    assert (end.state, job.recorded().end) == ("UNUSABLE", end)
    assert "changed while the job could read it; run again" in bad_end_message(job.recorded())
    with pytest.raises(FatalError, match="changed since prepare read it"):
        job.submit(ResubmitRequest(clear="once"))
    job.store.write(INPUT, b"v1\n")
    job.shard = job.prepared()
    assert job.submit(ResubmitRequest(clear="once")).submission == 2
    assert len(job.paid) == 2


def test_a_change_after_the_recorded_end_does_not_alter_it(job: Job) -> None:
    """A change after the recorded end does not alter it, also for another run that waits for the same job."""
    record = job.submit()
    assert job.conclude(record) == COMPLETED
    job.store.write(INPUT, b"v2\n")
    assert job.conclude(record) == COMPLETED
    assert job.recorded().end == COMPLETED
