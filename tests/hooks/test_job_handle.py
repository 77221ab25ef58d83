"""A wait goes on by the service's own status when ML Commons refuses one; each side is a server on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.hooks.ai_services import client_of
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.services.aws import AwsJobClient
from tests.faults.waits import ended
from tests.scripted import Scripted
from tests.stored import present

FOLDER = "s3://work/jobs/k"
BATCH = {
    "id": "batch_1", "object": "batch", "endpoint": "/v1/embeddings", "input_file_id": "file-1",
    "completion_window": "24h", "created_at": 1, "status": "completed", "output_file_id": "file-2",
}  # fmt: skip
WRONG_KEY = (401, {"error": {"code": "invalid_api_key", "message": "Incorrect API key provided"}})
UNKNOWN = (404, {"error": {"code": None, "message": "No batch found with id 'batch_1'"}})


def refusal(status: int, reason: str) -> tuple[int, Any]:
    """Answer as ML Commons does."""
    return status, {"status": status, "error": {"type": "status_exception", "reason": reason}}


class Sides:
    """ML Commons and OpenAI, and a job of theirs that is submitted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: LocalFiles, name: str) -> None:
        self.ml_commons, self.openai = Scripted(), Scripted()
        self.openai.answer = lambda _: (200, BATCH)
        self.store = store
        self._name = name
        for kind, server in (("opensearch", self.ml_commons), ("openai", self.openai)):
            conn: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "schema": "http"}
            conn |= {"conn_type": kind} if kind == "opensearch" else {"conn_type": "http", "password": "key"}
            monkeypatch.setenv(f"AIRFLOW_CONN_{kind}_{name}".upper(), json.dumps(conn))
        aws = {"conn_type": "aws", "login": "id", "password": "secret", "extra": {"region_name": "us-east-1"}}
        monkeypatch.setenv(f"AIRFLOW_CONN_AWS_{name}".upper(), json.dumps(aws))
        monkeypatch.setattr(JobHandle, "_objects", lambda _: store)
        record = JobRecord(
            "k", "n", "openai", "m", "in", "out", time.time(), ml_task_id="t", remote_job={"id": "batch_1"}
        )
        assert JobRecords(store, FOLDER).write(record, etag=None)

    def end(self) -> tuple[bool, dict[str, Any]]:
        """Wait for the job."""
        from types import SimpleNamespace

        from opensearch_batch.triggers.ml_task import MLTaskTrigger

        trigger = MLTaskTrigger(
            jobs=[{"task_id": "t", "job": FOLDER}],
            service="openai",
            poll_every_s=0.01,
            poll_at_most_s=0.01,
            deadline_s=None,
            opensearch_conn_id=f"opensearch_{self._name}",
            aws_conn_id=f"aws_{self._name}",
            ai_conn_id=f"openai_{self._name}",
        )
        trigger.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="poll", map_index=0)  # type: ignore[assignment] # what Airflow gives it
        return asyncio.run(ended(trigger))


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sides]:
    """Both servers, whose connections no other test uses."""
    made = Sides(monkeypatch, LocalFiles(tmp_path), tmp_path.name.replace("-", "_"))
    yield made
    made.ml_commons.close()
    made.openai.close()


@pytest.mark.parametrize(
    "refused",
    [
        refusal(401, 'Error from remote service: {"error": {"code": "invalid_api_key"}}'),
        # The status action of the AWS document is a GET, whose body ML Commons before 3.5 does not send.
        refusal(400, 'Error from remote service: {"__type": "UnknownOperationException"}'),
        refusal(403, "no permissions for [cluster:admin/opensearch/ml/tasks/get]"),
        refusal(404, "Failed to find task"),
    ],
)
def test_a_status_that_ml_commons_refuses_comes_from_the_service(sides: Sides, refused: tuple[int, Any]) -> None:
    """The job is paid for, so no refusal ends the wait for it."""
    sides.ml_commons.answer = lambda _: refused
    succeeds, result = sides.end()
    assert (succeeds, result["state"], result["outputs"]) == (True, "COMPLETED", ["openai://file-2"])


@pytest.mark.parametrize("answer", [WRONG_KEY, UNKNOWN])
def test_a_service_that_refuses_too_ends_no_wait_at_once(sides: Sides, answer: tuple[int, Any]) -> None:
    """A changed key is known here only after minutes, and a job that is unknown to a wrong key is not lost."""
    sides.ml_commons.answer = lambda _: refusal(401, 'Error from remote service: {"error": {"code": "invalid"}}')
    sides.openai.answers = [answer]
    succeeds, result = sides.end()
    assert (succeeds, result["state"]) == (True, "COMPLETED")


def test_a_job_that_neither_knows_is_lost(sides: Sides) -> None:
    """Both were asked with a key that they accept."""
    sides.ml_commons.answer = lambda _: refusal(404, "Failed to find task")
    sides.openai.answer = lambda _: UNKNOWN
    succeeds, result = sides.end()
    assert (succeeds, result["state"]) == (False, "LOST")
    assert present(JobRecords(sides.store, FOLDER).read()).status == "ended"


@pytest.mark.parametrize("service", ["sagemaker", "bedrock"])
@pytest.mark.parametrize(("region", "asked"), [("eu-central-1", "eu-central-1"), ("", "us-east-1")])
def test_a_job_is_looked_for_in_the_connectors_region(sides: Sides, service: str, region: str, asked: str) -> None:
    """A job of another region than the connection's was not found, and paid for again."""
    conn_id = f"aws_{sides._name}"  # noqa: SLF001 - the connection of this test
    client = client_of(service, aws_conn_id=conn_id, region=region)
    assert isinstance(client, AwsJobClient)
    assert client.api.meta.region_name == asked
    record = JobRecord("k", "n", service, "m", "in", "out", 0.0, region=region)
    assert JobHandle(FOLDER, service, "o", conn_id, None)._client(record).api.meta.region_name == asked  # type: ignore[attr-defined] # noqa: SLF001 - an AWS client
