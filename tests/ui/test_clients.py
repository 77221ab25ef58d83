"""Clients of OpenSearch of which only the host changes: opensearch-py, and the lines of curl in both documents."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from opensearchpy import OpenSearch
from opensearchpy.exceptions import (
    AuthenticationException,
    AuthorizationException,
    NotFoundError,
    RequestError,
    TransportError,
)

from tests.airflow_in_process import password
from tests.curl_lines import (
    AWS_CREDENTIAL,
    OPENAI_CREDENTIAL,
    PAGE,
    at_airflow,
    copied_line,
    documented_lines,
    run_line,
)
from tests.documented_requests import DOCUMENTED_MULTIPLE, DOCUMENTED_SINGLE
from tests.ui import airflow_runs
from tests.ui.ml_node import MODEL, MLNode
from tests.ui.served import served

if TYPE_CHECKING:
    from fastapi import FastAPI


@pytest.fixture
def url(root: FastAPI, node: MLNode) -> Iterator[str]:
    """The address of the api-server."""
    node.reset()
    with served(root) as address:
        yield address
    airflow_runs.delete_runs()


@pytest.fixture
def client(url: str) -> Iterator[OpenSearch]:
    """Another host, and a user of Airflow."""
    with client_of(url, "op") as made:
        yield made


def client_of(url: str, user: str, secret: str | None = None) -> OpenSearch:
    """Make a client as its documents do."""
    return OpenSearch(url, http_auth=(user, secret or password(user)), max_retries=0, timeout=60)


def test_opensearch_py_ingests_and_follows_the_task(client: OpenSearch) -> None:
    """By its methods for ML Commons, and by requests where it has none."""
    started = client.transport.perform_request("POST", "/_plugins/_ml/_batch_ingestion", body=DOCUMENTED_SINGLE)
    assert (started["task_type"], started["status"]) == ("BATCH_INGEST", "CREATED")
    task_id = started["task_id"]
    assert client.plugins.ml.get_task(task_id=task_id)["state"] == "CREATED"
    airflow_runs.set_state(task_id, "running")
    query = {"query": {"bool": {"filter": [{"term": {"state": "RUNNING"}}, {"term": {"task_type": "BATCH_INGEST"}}]}}}
    hits = client.plugins.ml.search_tasks(body=query)["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == [task_id]
    assert client.transport.perform_request("POST", f"/_plugins/_ml/tasks/{task_id}/_cancel") == {"status": "OK"}
    assert client.plugins.ml.get_task(task_id=task_id, params={"pretty": "true"})["state"] == "CANCELLED"


def test_opensearch_py_predicts(client: OpenSearch) -> None:
    """The task is one of ML Commons."""
    body = {"parameters": {"input_file_id": f"file-{uuid.uuid4().hex}"}}
    path = f"/_plugins/_ml/models/{MODEL}/_batch_predict"
    started = client.transport.perform_request("POST", path, body=body)
    assert client.plugins.ml.get_task(task_id=started["task_id"])["task_type"] == "BATCH_PREDICTION"
    assert client.transport.perform_request("POST", path, body=body)["task_id"] == started["task_id"]


def test_opensearch_py_understands_the_errors(url: str, client: OpenSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is the exception that the same mistake is with OpenSearch."""
    ingest = ("POST", "/_plugins/_ml/_batch_ingestion")
    with pytest.raises(RequestError, match=r"illegal_argument_exception.*index_name") as wrong:
        client.transport.perform_request(*ingest, body={**DOCUMENTED_SINGLE, "index_name": 1})
    assert (wrong.value.status_code, wrong.value.error) == (400, "illegal_argument_exception")
    with pytest.raises(NotFoundError, match="Failed to find task"):
        client.plugins.ml.get_task(task_id="batch_ingest.none")
    with client_of(url, "viewer") as viewer, pytest.raises(AuthorizationException, match="security_exception"):
        viewer.transport.perform_request(*ingest, body=DOCUMENTED_SINGLE)
    with client_of(url, "op", "wrong") as unknown, pytest.raises(AuthenticationException, match="security_exception"):
        unknown.plugins.ml.get_task(task_id="batch_ingest.none")
    monkeypatch.setenv("AIRFLOW__OPENSEARCH_BATCH__MAX_QUEUED_REQUESTS", "0")
    with pytest.raises(TransportError, match="Exceeded maximum limit for BATCH_INGEST tasks") as busy:
        client.transport.perform_request(*ingest, body=DOCUMENTED_SINGLE)
    assert busy.value.status_code == 429


def test_bodies_may_be_compressed(url: str) -> None:
    """As with `http_compress`."""
    login = ("op", password("op"))
    with OpenSearch(url, http_auth=login, http_compress=True, max_retries=0) as compressing:
        started = compressing.transport.perform_request(
            "POST", "/_plugins/_ml/_batch_ingestion", body={**DOCUMENTED_SINGLE, "index_name": "i" * 200}
        )
    assert started["status"] == "CREATED"


def test_the_lines_of_our_document_run(url: str, node: MLNode) -> None:
    """In their order, with the variables that the page names."""
    ingest, get, search, cancel, predict = documented_lines()
    variables = {"AIRFLOW": url, "PASSWORD": password("admin"), "MODEL": MODEL}
    started = run_line(ingest, **variables)
    assert set(started) == {"task_id", "task_type", "status"}
    # The page shows the answer to it.
    assert '{"task_id": "batch_ingest.' in PAGE.read_text()
    variables["TASK"] = started["task_id"]
    assert run_line(get, **variables)["state"] == "CREATED"
    found = [hit for hit in run_line(search, **variables)["hits"]["hits"] if hit["_id"] == started["task_id"]]
    assert [hit["_source"] for hit in found] == [{"state": "CREATED"}]
    assert run_line(cancel, **variables) == {"status": "OK"}
    assert run_line(get, **variables)["state"] == "CANCELLED"
    assert run_line(predict, **variables)["status"] == "CREATED"
    assert len(node.paid) == 1


def test_the_lines_of_opensearchs_documents_run(url: str, node: MLNode) -> None:
    """Host and login are all that changes."""

    def run(method: str, path: str, body: Any = None) -> Any:
        user = f"op:{password('op')}"
        return run_line(at_airflow(copied_line(method, path, body), url, user))

    for body, keys in ((DOCUMENTED_SINGLE, AWS_CREDENTIAL), (DOCUMENTED_MULTIPLE, OPENAI_CREDENTIAL)):
        started = run("POST", "/_plugins/_ml/_batch_ingestion", {**body, "credential": keys})
        assert (started["task_type"], started["status"]) == ("BATCH_INGEST", "CREATED")
        task = run("GET", f"/_plugins/_ml/tasks/{started['task_id']}")
        assert task["state"] == "CREATED"
    node.parameters = {**node.parameters, "input_file_id": f"file-{uuid.uuid4().hex}"}
    body = {"parameters": {"model": "text-embedding-3-large"}}
    predicted = run("POST", f"/_plugins/_ml/models/{MODEL}/_batch_predict", body)
    assert run("GET", f"/_plugins/_ml/tasks/{predicted['task_id']}")["state"] == "RUNNING"
    assert run("POST", f"/_plugins/_ml/tasks/{predicted['task_id']}/_cancel_batch") == {"status": "OK"}
    query = {"query": {"bool": {"filter": [{"term": {"function_name": "KMEANS"}}]}}}
    found = run("GET", "/_plugins/_ml/tasks/_search", query)
    assert set(found) == {"took", "timed_out", "_shards", "hits"}
