"""ML Commons' API on a real stack: clients of OpenSearch of which only the host changes."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import requests
from opensearchpy import OpenSearch

from include.local_stack.airflow import ADMIN
from include.local_stack.airflow_api import AirflowAPI
from include.local_stack.buckets import create_bucket
from tests.curl_lines import OPENAI_CREDENTIAL, PAGE, at_airflow, copied_line, documented_lines, run_line
from tests.documented_requests import DOCUMENTED_MULTIPLE, DOCUMENTED_SINGLE
from tests.end_to_end.ingestion_runs import INDEX_BODY, Runs, files_with
from tests.lab import Lab
from tests.local_stack.test_ml_commons import parameters, registered
from tests.waiting import WAIT_S, eventually

INGEST = ("POST", "/_plugins/_ml/_batch_ingestion")
ENDED = {"COMPLETED", "COMPLETED_WITH_ERROR", "FAILED", "CANCELLED"}
ROWS = [
    {"SageMakerOutput": [[n, 1.5], [2.5, n]], "content": [f"chapter {n}", f"title {n}"], "id": n} for n in range(1, 4)
]
BURST = 60


@pytest.fixture(scope="module", autouse=True)
def _dag(lab: Lab) -> None:
    # The default work prefix of requests, and that of the API's own jobs.
    create_bucket(lab.s3, "opensearch-batch")
    lab.stack.airflow_api().wait_for_dag("batch_ingestion")


@pytest.fixture
def client(lab: Lab) -> Iterator[OpenSearch]:
    """A client of OpenSearch with another host, and a user of Airflow."""
    login = (ADMIN, lab.stack.airflow_password())
    with OpenSearch(lab.stack.addresses.airflow, http_auth=login, max_retries=0, timeout=WAIT_S) as made:
        yield made


@pytest.fixture
def runs(lab: Lab, airflow: AirflowAPI, bucket: str, index: str) -> Runs:
    """Sources and documents of a test."""
    return Runs(lab, airflow, bucket, index)


@pytest.fixture
def ended(client: OpenSearch) -> Callable[[str], dict[str, Any]]:
    """Wait for the end of a task."""

    def task(task_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] = client.plugins.ml.get_task(task_id=task_id)
        return found if found["state"] in ENDED else None

    return lambda task_id: eventually(lambda: task(task_id), f"the end of task {task_id}")


def credential() -> dict[str, str]:
    """Make keys that occur nowhere else; the S3 server accepts any."""
    keys = {name: f"{name}-{uuid.uuid4().hex}" for name in ("access_key", "secret_key", "session_token")}
    return {"region": "us-east-1", **keys}


def no_credentials(airflow: AirflowAPI) -> bool:
    """Say whether no connection of a run is left."""
    ids = [each["connection_id"] for each in airflow.call("GET", "connections", limit=100)["connections"]]
    return not [conn_id for conn_id in ids if conn_id.startswith("opensearch_batch_run.")]


@pytest.mark.slow
def test_opensearch_py_ingests_with_a_credential_of_which_nothing_is_left(
    lab: Lab, client: OpenSearch, runs: Runs, airflow: AirflowAPI, ended: Callable[[str], dict[str, Any]]
) -> None:
    """Documents, counts, the search; and no file of Airflow, of a server or of the store holds a key."""
    keys = credential()
    body = runs.request(runs.rows("rows.jsonl", ROWS))
    started = client.transport.perform_request(*INGEST, body={**body, "credential": keys})
    assert (started["task_type"], started["status"]) == ("BATCH_INGEST", "CREATED")
    task = ended(started["task_id"])
    assert (task["state"], task["progress"]["read"], task["progress"]["indexed"]) == ("COMPLETED", 3, 3), task
    assert set(runs.documents()) == {"1", "2", "3"}
    query = {"query": {"bool": {"filter": [{"term": {"task_type": "BATCH_INGEST"}}, {"term": {"state": "COMPLETED"}}]}}}
    hits = client.plugins.ml.search_tasks(body=query)["hits"]["hits"]
    assert started["task_id"] in [hit["_id"] for hit in hits]
    eventually(lambda: no_credentials(airflow), "the removal of the credential")
    stored = [content for item in lab.objects.list(f"s3://{runs.bucket}/") if (content := lab.objects.read(item.uri))]
    for name, value in keys.items():
        if name != "region":
            assert files_with(lab, value) == []
            assert not [each for each in stored if value.encode() in each.content]
    again = client.transport.perform_request(*INGEST, body=body)
    assert ended(again["task_id"])["progress"]["unchanged"] == 3
    assert runs.writes() == 3


def test_a_key_that_openai_refuses_fails_the_task_and_is_removed(
    client: OpenSearch, runs: Runs, airflow: AirflowAPI, ended: Callable[[str], dict[str, Any]]
) -> None:
    """The error says so, without the key."""
    key = f"sk-{uuid.uuid4().hex}"
    body = {**DOCUMENTED_MULTIPLE, "index_name": runs.index, "credential": {"openAI_key": key}}
    task = ended(client.transport.perform_request(*INGEST, body=body)["task_id"])
    assert task["state"] == "FAILED"
    assert "OpenAI" in task["error"]
    assert key not in task["error"]
    eventually(lambda: no_credentials(airflow), "the removal of the credential")
    assert files_with(runs.lab, key) == []


def test_the_lines_of_both_documents_run(lab: Lab, runs: Runs, index: str, ended: Callable[[str], Any]) -> None:
    """Ours as they stand, OpenSearch's with host and login changed and with files that exist."""
    variables = {"AIRFLOW": lab.stack.addresses.airflow, "PASSWORD": lab.stack.airflow_password()}
    variables["MODEL"] = registered(lab, "openai")
    ingest, get, search, cancel, predict = documented_lines()
    assert '"my-nlp-index"' in ingest
    variables["TASK"] = run_line(ingest.replace("my-nlp-index", index), **variables)["task_id"]
    assert run_line(get, **variables)["task_type"] == "BATCH_INGEST"
    assert run_line(search, **variables)["hits"]["total"]["value"] >= 0
    # The run may have ended before.
    done = lab.http.post(
        f"{variables['AIRFLOW']}/_plugins/_ml/tasks/{variables['TASK']}/_cancel",
        auth=(ADMIN, variables["PASSWORD"]),
        timeout=WAIT_S,
    )
    assert (done.status_code, cancel.count("_cancel")) in {(200, 1), (400, 1)}
    ended(variables["TASK"])
    file_id = parameters(lab, "openai")["input_file_id"]
    assert "file-of-requests" in predict
    started = run_line(predict.replace("file-of-requests", file_id), **variables)
    assert started["status"] == "CREATED"
    assert "task_id" in PAGE.read_text()

    def run(method: str, path: str, body: Any = None) -> Any:
        line = copied_line(method, path, body)
        return run_line(at_airflow(line, variables["AIRFLOW"], f"{ADMIN}:{variables['PASSWORD']}"))

    source = {"type": "s3", "source": [runs.rows("sagemaker_batch.json.out", ROWS)]}
    single = {**DOCUMENTED_SINGLE, "index_name": index, "data_source": source, "credential": credential()}
    more = {"index_body": INDEX_BODY, "work_prefix": f"s3://{runs.bucket}/work"}
    first = run("POST", "/_plugins/_ml/_batch_ingestion", {**single, **more})
    multiple = {**DOCUMENTED_MULTIPLE, "index_name": index, "credential": OPENAI_CREDENTIAL}
    second = run("POST", "/_plugins/_ml/_batch_ingestion", multiple)
    assert [each["task_type"] for each in (first, second)] == ["BATCH_INGEST"] * 2
    assert ended(first["task_id"])["state"] == "COMPLETED"
    assert ended(second["task_id"])["state"] == "FAILED"
    assert run("GET", f"/_plugins/_ml/tasks/{started['task_id']}")["task_type"] == "BATCH_PREDICTION"
    query = {"query": {"bool": {"filter": [{"term": {"function_name": "REMOTE"}}]}}}
    assert run("GET", "/_plugins/_ml/tasks/_search", query)["hits"]["total"]["value"] >= 1


def test_a_batch_job_is_submitted_once_seen_and_cancelled(lab: Lab, client: OpenSearch) -> None:
    """Through ML Commons; the service counts one job for equal requests."""
    model_id = registered(lab, "openai")
    with openai.OpenAI(
        api_key=lab.stack.credentials.secret_key, base_url=f"{lab.stack.addresses.ai_services}/v1"
    ) as files:
        line = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": ["one"]}}
        file_id = files.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch").id
    count = f"{lab.stack.addresses.ai_services}/jobs/count"
    before = lab.http.get(count, timeout=WAIT_S).json()["openai"]
    path, body = f"/_plugins/_ml/models/{model_id}/_batch_predict", {"parameters": {"input_file_id": file_id}}
    lab.fault(service="openai", fault="delay", seconds=3600, operation=None)
    try:
        tasks = {client.transport.perform_request("POST", path, body=body)["task_id"] for _ in range(3)}
        (task_id,) = tasks
        assert lab.http.get(count, timeout=WAIT_S).json()["openai"] == before + 1
        task = client.plugins.ml.get_task(task_id=task_id)
        assert (task["task_type"], task["state"]) == ("BATCH_PREDICTION", "RUNNING")
        assert set(task["progress"]) == {"total", "completed", "failed"}
        query = {"query": {"term": {"model_id": model_id}}, "sort": [{"create_time": "desc"}], "size": 1}
        assert [hit["_id"] for hit in client.plugins.ml.search_tasks(body=query)["hits"]["hits"]] == [task_id]
        assert client.transport.perform_request("POST", f"/_plugins/_ml/tasks/{task_id}/_cancel") == {"status": "OK"}
        states = {"CANCELLING", "CANCELLED"}
        eventually(lambda: client.plugins.ml.get_task(task_id=task_id)["state"] in states, "the cancellation")
    finally:
        lab.no_faults()


@pytest.mark.slow
def test_a_credential_outlives_the_worker_and_not_the_run(
    client: OpenSearch, runs: Runs, airflow: AirflowAPI, ended: Callable[[str], dict[str, Any]]
) -> None:
    """The retry of a killed task reads the sources with it."""
    total = 100_000
    source = runs.rows("rows.jsonl", [{"id": number, "text": f"row {number}"} for number in range(total)])
    body = {
        "index_name": runs.index,
        "field_map": {"_id": "$.id", "text": "$.text"},
        "data_source": {"type": "s3", "source": [source]},
        "work_prefix": f"s3://{runs.bucket}/work",
        "max_body_bytes": 50_000,
        "max_in_flight": 1,
        "credential": credential(),
    }
    task_id = client.transport.perform_request(*INGEST, body=body)["task_id"]
    settled = runs.kill("batch_ingestion", task_id)
    running = client.plugins.ml.get_task(task_id=task_id)
    assert (running["state"], running["progress"]["read"] >= settled) == ("RUNNING", True)
    assert not no_credentials(airflow)
    assert ended(task_id)["progress"]["read"] == total
    assert runs.lab.node("GET", f"{runs.index}/_count")["count"] == total
    eventually(lambda: no_credentials(airflow), "the removal of the credential")


@pytest.mark.slow
def test_a_flood_is_accepted_as_far_as_it_can_be_run(
    lab: Lab, runs: Runs, client: OpenSearch, ended: Callable[[str], dict[str, Any]]
) -> None:
    """More requests at once than the api-server runs: each accepted one ends, each other is told when to try again."""
    source = runs.rows("rows.jsonl", ROWS)
    login, url = (ADMIN, lab.stack.airflow_password()), f"{lab.stack.addresses.airflow}{INGEST[1]}"

    def send(number: int) -> requests.Response:
        # Each has its own progress, so that none takes over from another.
        body = runs.request(source, work_prefix=f"s3://{runs.bucket}/work/{number}")
        return lab.http.post(url, json=body, auth=login, timeout=WAIT_S)

    with ThreadPoolExecutor(max_workers=BURST) as senders:
        answers = list(senders.map(send, range(BURST)))
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}, counts
    for answer in answers:
        if answer.status_code == requests.codes.too_many_requests:
            assert int(answer.headers["Retry-After"]) in {1, 30}
            assert answer.json()["status"] == 429
    for answer in answers:
        if answer.ok:
            assert ended(answer.json()["task_id"])["state"] == "COMPLETED"
    assert client.plugins.ml.search_tasks(body={"query": {"term": {"state": "CREATED"}}})["hits"]["total"]["value"] == 0
    assert set(runs.documents()) == {"1", "2", "3"}
