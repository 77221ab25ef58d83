"""A wait ends when its job ends at the service, and as it ended there, whatever ML Commons has stored of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import requests

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.status_poller import remote_status
from opensearch_batch.core.jobs.waiters import Waiter, Waiters
from tests.faults.waits import TASK_INDEX, Wait
from tests.lab import Lab
from tests.stored import present
from tests.waiting import WAIT_S, eventually

Begin = Callable[..., Wait]


@pytest.fixture
def begin(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Submits a job; nobody waits for it yet."""
    yield lambda service="sagemaker", **delay: Wait(lab, monkeypatch, service, **delay)
    lab.no_faults()


def test_a_completed_job_leaves_its_outputs_its_words_and_no_waiter(begin: Begin) -> None:
    """What the service said last stands in the record."""
    wait = begin()
    succeeds, result = wait.end()
    assert succeeds
    record = wait.record()
    assert result == {
        "task_id": wait.submitted.ml_task_id,
        "state": "COMPLETED",
        "outputs": [f"{record.output}input.jsonl.out"],
        "reason": "",
        "counts": {},
    }
    assert record.remote_job["TransformJobStatus"] == "Completed"
    assert wait.waiters() == []


def test_the_services_own_counts_are_in_the_result(begin: Begin) -> None:
    """OpenAI counts the requests of a batch."""
    succeeds, result = begin("openai").end()
    assert succeeds
    assert result["counts"] == {"total": 6, "completed": 6, "failed": 0}


def test_a_job_that_failed_names_no_output_that_is_not_there(begin: Begin, lab: Lab) -> None:
    """SageMaker wrote nothing; the reason is its own."""
    lab.fault(fault="fail")
    wait = begin()
    succeeds, result = wait.end()
    assert not succeeds
    assert (result["state"], result["outputs"]) == ("FAILED", [])
    assert "AlgorithmError" in result["reason"]
    assert wait.recorded_end().reason == result["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("status", ["incomplete", "Completed"])
def test_a_stored_status_is_no_end(begin: Begin, status: str) -> None:
    """ML Commons takes the one for COMPLETED, and the other is not yet true: the service has the last word."""
    wait = begin(seconds=6.0)
    wait.store(state="COMPLETED", remote_job={"TransformJobStatus": status})
    succeeds, result = wait.end()
    assert (succeeds, result["state"]) == (True, "COMPLETED")
    assert wait.recorded_end().at >= wait.job()["TransformEndTime"].timestamp()


@pytest.mark.slow
def test_a_job_that_ml_commons_gave_up_is_asked_for(begin: Begin) -> None:
    """It asks no more by itself, but still when it is asked."""
    wait = begin(seconds=3.0)
    wait.store(state="UNREACHABLE", remote_job={"num_of_retries": 11})
    succeeds, result = wait.end()
    assert (succeeds, result["state"]) == (True, "COMPLETED")


def test_a_task_that_ml_commons_does_not_find_is_looked_for_at_the_service(begin: Begin, lab: Lab) -> None:
    """ML Commons says so too when it cannot load a model; nothing is lost by that."""
    wait = begin(seconds=2.0)
    lab.node("DELETE", f"{TASK_INDEX}/_doc/{wait.submitted.ml_task_id}?refresh=true")
    succeeds, result = wait.end()
    assert (succeeds, result["state"], len(result["outputs"])) == (True, "COMPLETED", 1)


@contextmanager
def changed_connector(wait: Wait, **change: Any) -> Iterator[None]:
    """Change the connector of a job, and change it back; a model that is deployed keeps the connector it had."""
    node, model = wait.lab.node, f"_plugins/_ml/models/{wait.submitted.model_id}"
    connector = f"_plugins/_ml/connectors/{node('GET', model)['connector_id']}"
    key = wait.lab.stack.credentials.secret_key
    before = {"actions": node("GET", connector)["actions"], "credential": {"openAI_key": key}}

    def is_changed(values: dict[str, Any]) -> bool:
        """Change the connector, unless a node still deploys one of its models: a submission can do that."""
        connector_id = connector.rpartition("/")[2]
        query = {"query": {"match": {"connector_id": connector_id}}, "size": 100}
        for hit in node("POST", "_plugins/_ml/models/_search", query)["hits"]["hits"]:
            if hit["_source"].get("connector_id") == connector_id:
                node("POST", f"_plugins/_ml/models/{hit['_id']}/_undeploy")
        try:
            node("PUT", connector, values)
        except requests.HTTPError as error:
            if "still using" not in error.response.text:
                raise
            return False
        return True

    for values in (change, {name: before[name] for name in change}):
        eventually(partial(is_changed, values), "the connector was changed")
        node("POST", f"{model}/_deploy")
        if values is change:
            yield


def test_a_key_that_changes_while_the_job_runs(begin: Begin) -> None:
    """The connector's key is revoked, the connection has the new one."""
    wait = begin("openai", seconds=2.0)
    with changed_connector(wait, credential={"openAI_key": "revoked"}):
        with pytest.raises(ConfigError, match="401"):
            remote_status(wait.flow.ml, present(wait.submitted.ml_task_id), wait.flow.adapter)
        succeeds, result = wait.end()
    assert (succeeds, result["state"]) == (True, "COMPLETED")


def test_the_connector_of_the_aws_document_is_polled_at_the_service(begin: Begin, lab: Lab) -> None:
    """Its status action is a GET: ML Commons before 3.5 sends that without its body."""
    wait = begin(seconds=2.0)
    model = lab.node("GET", f"_plugins/_ml/models/{wait.submitted.model_id}")
    actions = lab.node("GET", f"_plugins/_ml/connectors/{model['connector_id']}")["actions"]
    published = [
        {**action, "method": "GET"} if action["action_type"] == "BATCH_PREDICT_STATUS" else action for action in actions
    ]
    assert published != actions
    with changed_connector(wait, actions=published):
        succeeds, result = wait.end()
    assert (succeeds, result["state"]) == (True, "COMPLETED")


def test_a_job_that_nobody_knows_is_lost(begin: Begin, lab: Lab) -> None:
    """It is recorded, so that the next attempt says what to do."""
    wait = begin(seconds=3600.0)
    lab.node("DELETE", f"{TASK_INDEX}/_doc/{wait.submitted.ml_task_id}?refresh=true")
    job_records = JobRecords(lab.objects, wait.folder)
    found = present(job_records.load())
    assert job_records.write(msgspec.structs.replace(found[0], name="nobody-knows-it"), etag=found[1])
    succeeds, result = wait.end()
    assert (succeeds, result["state"], result["outputs"]) == (False, "LOST", [])
    assert wait.recorded_end().state == "LOST"


def test_a_deadline_cancels_the_job(begin: Begin) -> None:
    """At the deadline and not an interval later, after a last question to the service."""
    wait = begin(seconds=3600.0)
    succeeds, result = wait.end(deadline_s=4.0, poll_every_s=WAIT_S, poll_at_most_s=WAIT_S)
    assert (succeeds, result["state"]) == (False, "EXPIRED")
    assert wait.job()["TransformJobStatus"] in {"Stopping", "Stopped"}
    assert 4.0 <= wait.recorded_end().at - wait.submitted.intended_at < WAIT_S


@pytest.mark.slow
def test_a_deadline_leaves_a_job_alone_that_others_wait_for(begin: Begin, lab: Lab) -> None:
    """Only this wait ends; the record has no end."""
    wait = begin(seconds=3600.0)
    other = Waiter("d", "another run", "poll", 0, wait.submitted.ml_task_id)
    Waiters(lab.objects, wait.folder, clock=time.time).register(other)
    assert wait.end(deadline_s=3.0) == (False, {})
    assert (wait.record().end, wait.job()["TransformJobStatus"]) == (None, "InProgress")


@pytest.mark.slow
@pytest.mark.parametrize("service", ["sagemaker", "openai"])
def test_a_job_that_ml_commons_does_not_know_is_asked_for_at_the_service(begin: Begin, service: str) -> None:
    """It was found there after an answer was lost."""
    wait = begin(service, seconds=2.0)
    job_records = JobRecords(wait.lab.objects, wait.folder)
    found = present(job_records.load())
    known: dict[str, Any] = wait.flow.client.describe(wait.submitted)
    assert job_records.write(msgspec.structs.replace(found[0], ml_task_id=None, remote_job=known), etag=found[1])
    succeeds, result = wait.end(jobs=[{"task_id": None, "job": wait.folder}])
    assert (succeeds, result["state"], result["task_id"]) == (True, "COMPLETED", None)
