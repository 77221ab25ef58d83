"""Waits for a job in this process: real triggers over a running stack, without Airflow's own processes."""

from __future__ import annotations

import asyncio
import json
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

from include.local_stack.airflow import connections
from include.local_stack.state import StateFile
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.triggers.ml_task import MLTaskTrigger
from tests.conformance.shard_flow import ShardFlow
from tests.lab import Lab
from tests.stored import present

TASK_INDEX = ".plugins-ml-task"


class Wait:
    """A job that was submitted, and who waits for it.

    Its connections are of its own name, so that no client of another stack is met.
    """

    def __init__(self, lab: Lab, patch: pytest.MonkeyPatch, service: str = "sagemaker", **delay: float) -> None:
        self.lab, self.service = lab, service
        self._ids = {kind: f"{kind}_{uuid.uuid4().hex}" for kind in ("opensearch", "aws", "openai", "cohere")}
        state = present(StateFile(lab.stack.home).read())
        for found in connections(state.ports, lab.stack.credentials, nodes=state.opensearch_nodes):
            name = self._ids[found.pop("connection_id").removesuffix("_default")]
            patch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(found))
        self.flow = ShardFlow(lab, service, lab.new_bucket(), "none")
        if delay:
            self.flow.fault("delay", **delay)
        shard = self.flow.prepare()
        self.folder = self.flow.work_prefix.job(shard.job)
        self.submitted = self.flow.submit(shard)[1]

    def trigger(self, **changes: Any) -> MLTaskTrigger:
        """Make a trigger that waits for it."""
        waits = MLTaskTrigger(
            **{
                "jobs": [{"task_id": self.submitted.ml_task_id, "job": self.folder}],
                "service": self.service,
                "poll_every_s": 1.0,
                "poll_at_most_s": 1.0,
                "deadline_s": None,
                "opensearch_conn_id": self._ids["opensearch"],
                "aws_conn_id": self._ids["aws"],
                "ai_conn_id": self._ids.get(self.service),
                **changes,
            }
        )
        waits.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="poll", map_index=0)  # type: ignore[assignment] # what Airflow gives it
        return waits

    def end(self, **changes: Any) -> tuple[bool, dict[str, Any]]:
        """Wait for it; return whether the task succeeds, and its result."""
        return asyncio.run(ended(self.trigger(**changes)))

    def record(self) -> JobRecord:
        """Return the job's record."""
        return present(JobRecords(self.lab.objects, self.folder).load())[0]

    def recorded_end(self) -> End:
        """Return the end that is on record."""
        return present(self.record().end)

    def store(self, **changes: Any) -> None:
        """Change what ML Commons has stored of the task."""
        path = f"{TASK_INDEX}/_update/{self.submitted.ml_task_id}?refresh=true"
        self.lab.node("POST", path, {"doc": changes})

    def job(self) -> dict[str, Any]:
        """Ask SageMaker for the job."""
        found: dict[str, Any] = self.lab.sagemaker.describe_transform_job(TransformJobName=self.submitted.name)
        return found

    def waiters(self) -> list[str]:
        """List who is recorded to wait for it."""
        return [item.uri for item in self.lab.objects.list(f"{self.folder}/waiters/")]


async def ended(trigger: MLTaskTrigger) -> tuple[bool, dict[str, Any]]:
    """Run a trigger to its end; return whether its task succeeds, and its result."""
    (event,) = [event async for event in trigger.run()]
    assert isinstance(event, TaskSuccessEvent | TaskFailedEvent)
    results: Any = (event.xcoms or {}).get("return_value", [{}])
    return isinstance(event, TaskSuccessEvent), results[0]
