"""The result of `poll` is used only for the job whose record it fits."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.job_records import JobRecords, next_submission
from opensearch_batch.core.types.job import End, JobRecord, ResubmitRequest
from opensearch_batch.operators.base import polled_output
from tests.core.memory_objects import MemoryObjects

FOLDER = "s3://work/jobs/key"
OTHER_JOB = "does not belong to this shard's job s3://work/jobs/key: poll was marked as success by hand"


def job(task: str | None, file: str = "", *, service: str = "openai", end: str = "COMPLETED") -> JobRecord:
    """Return the record of a job with its output file."""
    members = {"openai": "output_file_id", "cohere": "output_dataset_id"}
    return JobRecord(
        "key",
        "name",
        service,
        "m",
        "s3://in",
        f"{FOLDER}/output/1/",
        intended_at=0.0,
        ml_task_id=task,
        remote_job={members[service]: file} if file else {},
        end=End(end, 1.0) if end else None,  # type: ignore[arg-type] # a state
    )


def output_of(record: JobRecord | None, task: str | None, *uris: str, state: str = "COMPLETED") -> list[str]:
    """Return the outputs that `ingest` uses, given the record of its shard's job and the XCom of `poll`."""
    store = MemoryObjects()
    if record is not None:
        JobRecords(store, FOLDER).write(record, etag=None)
    polled = json.dumps([{"task_id": task, "state": state, "outputs": list(uris)}])
    ti = SimpleNamespace(map_index=0, xcom_pull=lambda task_ids, map_indexes: polled)  # noqa: ARG005 - one XCom
    context: Any = {"ti": ti}
    service = "openai" if record is None else record.service
    return polled_output(context, "poll", number=0, objects=store, folder=FOLDER, service=service).uris


@pytest.mark.parametrize("service", ["openai", "cohere"])
def test_the_result_of_another_job_is_refused(service: str) -> None:
    """After a clear of prepare or batch_predict, an old result names the file of another job."""
    uri = f"{service}://new"
    record = job("new", "new", service=service)
    assert output_of(record, "new", uri) == [uri]
    for task, other in (("old", f"{service}://old"), ("old", uri), ("new", f"{service}://old")):
        with pytest.raises(ConfigError, match=OTHER_JOB):
            output_of(record, task, other)


def test_a_result_without_a_job_is_refused() -> None:
    """There is no record that it could fit."""
    with pytest.raises(ConfigError, match=OTHER_JOB):
        output_of(None, "old", "openai://old")


def test_a_job_that_ml_commons_does_not_know_is_known_by_its_outputs() -> None:
    """Such jobs have no task id to compare."""
    assert output_of(job(None, "new"), None, "openai://new") == ["openai://new"]
    with pytest.raises(ConfigError, match=OTHER_JOB):
        output_of(job(None, "new"), None, "openai://old")


def test_a_result_of_a_job_that_runs_again_is_refused() -> None:
    """The job was submitted again after a bad end, and the old result is of that end."""
    for state in ("FAILED", "COMPLETED"):
        again = next_submission(job("old", end="FAILED"), job("new", end=""), ResubmitRequest(clear="c"))
        with pytest.raises(ConfigError, match=OTHER_JOB):
            output_of(again, "old", "openai://old", state=state)


def test_a_completed_job_counts_though_another_run_submitted_it_again() -> None:
    """A run with force paid for it again, while this run was about to ingest it."""
    for end in ("COMPLETED", ""):
        past = msgspec.structs.replace(job("old", "old"), end=End("COMPLETED", 1.0) if end else None)
        again = next_submission(past, job("new", end=""), ResubmitRequest(force="f"))
        assert output_of(again, "old", "openai://old") == ["openai://old"]
