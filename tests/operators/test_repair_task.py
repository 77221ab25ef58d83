"""The task repair: it starts in the triggerer, submits one job, waits without a worker, and ends with a shard."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TriggerEvent

from opensearch_batch.core.errors import BatchError, ConfigError, RetriableError
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.types.identity import run_key
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.operators import repair
from opensearch_batch.operators.repair import OpenSearchRepairOperator
from opensearch_batch.triggers import repair as trigger
from opensearch_batch.triggers.ml_task import MLTaskTrigger
from opensearch_batch.triggers.repair import RepairTrigger, UnansweredTrigger
from opensearch_batch.triggers.submission import SubmissionTrigger
from tests.core.unanswered import LAYOUT, Run, key

MANIFEST = LAYOUT.manifest("r")


class Stage:
    """The task, in a run with records without a prediction."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = Run(run_key("p", "m1"))
        self.submitted: list[str] = []
        self.result: Any = ("submit", self.record())
        self.operator = OpenSearchRepairOperator(
            task_id="repair", work_prefix="s3://work", service="openai", model_id="m"
        )
        monkeypatch.setattr(repair, "object_storage", lambda _: self.run.objects)
        monkeypatch.setattr(OpenSearchRepairOperator, "submit", self._submit)

    def _submit(self, shard: Any, *_: Any, **__: Any) -> Any:
        self.submitted.append(shard.job)
        return self.result

    @staticmethod
    def record(state: Any = None) -> JobRecord:
        """Return the record of the job."""
        end = End(state, 1.0, "out of memory") if state else None
        return JobRecord("k", "j", "openai", "m", "in", "out", 0.0, ml_task_id="t", end=end)

    def execute(self, event: dict[str, Any] | None = None) -> Any:
        """Run the task."""
        save(self.run.objects, LAYOUT.manifest(self.run.run_key), self.run.manifest())
        dag_run = SimpleNamespace(dag_id="p", partition_key="today", run_id="m1")
        context: Any = {"dag_run": dag_run, "ti": SimpleNamespace(max_tries=0), "params": {}}
        if event is None:
            return self.operator.execute(context)
        return self.operator.execute_complete(context, event)

    def shards(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Run the task, and return the shards of its one group."""
        (group,) = self.execute(event)
        return list(group["shards"])

    def deferred(self) -> Any:
        """Return the trigger that the task waits in."""
        try:
            return self.execute({})
        except TaskDeferred as deferral:
            return deferral.trigger


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The task."""
    return Stage(monkeypatch)


def test_a_run_without_failures_is_skipped(stage: Stage) -> None:
    """Also where the task does not start in the triggerer, and after files of an earlier attempt."""
    stage.run.ingest()
    with pytest.raises(AirflowSkipException, match="every record has its prediction"):
        stage.execute()


def test_a_job_is_awaited_without_a_worker(stage: Stage) -> None:
    """After the wait, the task finds the job again and returns its shard."""
    stage.run.ingest("a")
    waits = stage.deferred()
    assert isinstance(waits, RepairTrigger)
    assert waits.jobs == [{"task_id": "t", "job": LAYOUT.job(stage.submitted[0]), "output": ""}]
    stage.result = "reuse", stage.record("COMPLETED")
    (shard,) = stage.shards({"given_up": False})
    assert (shard["id"], shard["job"], shard["records"], shard["documents"]) == ("repair", stage.submitted[0], 1, 1)
    assert stage.submitted[0] == stage.submitted[1]


def test_a_wait_that_was_abandoned_fails_the_task(stage: Stage) -> None:
    """Nothing else is submitted; a clear waits again."""
    stage.run.ingest("a")
    with pytest.raises(AirflowFailException, match="job j: no status for too long; clear repair to continue waiting"):
        stage.execute({"given_up": True})


def test_a_slot_is_awaited(stage: Stage) -> None:
    """The trigger is that of batch_predict."""
    stage.run.ingest("a")
    stage.result = SubmissionTrigger(
        jobs=[], holders=["h"], service="openai", opensearch_conn_id="o", aws_conn_id="a", ai_conn_id=None,
        poll_every_s=1, poll_at_most_s=2, deadline_s=None,
    )  # fmt: skip
    assert stage.deferred() is stage.result


def test_a_job_that_fails_leaves_dead_letters(stage: Stage) -> None:
    """The run goes on, because the records may be those that make any job fail."""
    stage.run.ingest("a")
    stage.result = "refuse", stage.record("FAILED")
    (shard,) = stage.shards({})
    assert (shard.get("job", ""), shard["documents"]) == ("", 1)
    assert not stage.run.store.lookup(key("a")).shards


def test_too_few_records_need_no_job(stage: Stage) -> None:
    """Nothing is submitted."""
    stage.run.ingest("a")
    stage.operator.service = "bedrock"
    assert ["job" in shard for shard in stage.shards({})] == [False]
    assert stage.submitted == []


def test_too_many_failures_fail_the_task(stage: Stage) -> None:
    """The error is a final one."""
    stage.run.ingest(*"abcdefghij")
    stage.run.ingest("k")
    with pytest.raises(AirflowFailException, match="11 of 20 records that were paid for have no prediction"):
        stage.execute({})


def events(waits: Any) -> list[TriggerEvent]:
    """Return the events of a trigger."""

    async def run() -> list[TriggerEvent]:
        return [event async for event in waits.run()]

    return asyncio.run(run())


def test_the_triggerer_ends_a_task_that_has_nothing_to_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """So no process starts; files of another run do not count."""
    run = Run()
    monkeypatch.setattr(trigger, "shared_object_storage", lambda _: run.objects)
    waits = UnansweredTrigger(manifest=MANIFEST, aws_conn_id="a")
    Run.ingest(_run_of(run, "r2"), "a")
    assert [type(event) for event in events(waits)] == [TaskSkippedEvent]
    run.ingest("a")
    assert [event.payload for event in events(waits)] == [{}]


def test_a_run_with_nothing_to_do_has_nothing_to_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its manifest is that of an earlier attempt, which may have had failures: `prepare` names none."""
    run = Run()
    run.ingest("a")
    monkeypatch.setattr(trigger, "shared_object_storage", lambda _: run.objects)
    assert [type(event) for event in events(UnansweredTrigger(manifest="", aws_conn_id="a"))] == [TaskSkippedEvent]


def _run_of(run: Run, name: str) -> Run:
    """Return another run with the same store."""
    other = Run(name)
    other.objects = run.objects
    return other


@pytest.mark.parametrize("error", [ConfigError("no such bucket"), RetriableError("away")])
def test_an_error_in_the_triggerer_is_left_to_the_task(monkeypatch: pytest.MonkeyPatch, error: BatchError) -> None:
    """The task fails with it, and is retried if that may help."""

    def refuse(_: str) -> Any:
        raise error

    monkeypatch.setattr(trigger, "shared_object_storage", refuse)
    assert [event.payload for event in events(UnansweredTrigger(manifest=MANIFEST, aws_conn_id="a"))] == [{}]


@pytest.mark.parametrize(
    ("event", "given_up"),
    [
        (TaskFailedEvent(), True),
        (TaskFailedEvent(xcoms={"return_value": {}}), False),
        (TaskSkippedEvent(), False),
    ],
)
def test_the_end_of_the_wait_returns_the_task_to_a_worker(
    monkeypatch: pytest.MonkeyPatch, event: TriggerEvent, *, given_up: bool
) -> None:
    """A failure of the job is not one of the wait."""

    async def run(_: MLTaskTrigger) -> Any:
        yield event

    monkeypatch.setattr(MLTaskTrigger, "run", run)
    waits = RepairTrigger(
        jobs=[{"task_id": "t", "job": "s3://j"}], service="openai", poll_every_s=1, poll_at_most_s=2, deadline_s=None,
        opensearch_conn_id="o", aws_conn_id="a",
    )  # fmt: skip
    assert [each.payload for each in events(waits)] == [{"given_up": given_up}]
    path, arguments = waits.serialize()
    assert path.endswith(".RepairTrigger")
    assert RepairTrigger(**arguments).serialize() == (path, arguments)
