"""Runs and ML Commons' tasks: one by one, searched together, cancelled."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from opensearch_batch.core.ingest.progress import Progress
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import IngestCounts
from tests.documented_requests import DOCUMENTED_SINGLE
from tests.ui import airflow_runs
from tests.ui.api_server import Api
from tests.ui.ml_node import MODEL, MLNode, refusal

COUNTS = {"read": 10, "indexed": 9, "unchanged": 0, "dead_letters": 1, "joined": 0}
RESULT = {"index": "i", "state": "DONE_WITH_DEAD_LETTERS", "counts": COUNTS, "report": "s3://w/r.json"}
ML_TASK = "MsBi1YsB0jLkkocYjD5f"


@pytest.fixture(autouse=True)
def _no_runs(api: Api) -> Iterator[None]:  # noqa: ARG001 - its database
    airflow_runs.delete_runs()
    yield
    airflow_runs.delete_runs()


@pytest.fixture
def start(api: Api) -> Callable[[], str]:
    """Start a run."""

    def start_run() -> str:
        return str(api.ok("POST", "_batch_ingestion", DOCUMENTED_SINGLE)["task_id"])

    return start_run


@pytest.mark.parametrize(
    ("run_state", "xcoms", "state", "more"),
    [
        ("queued", {}, "CREATED", set()),
        ("running", {}, "RUNNING", set()),
        ("success", {"return_value": {**RESULT, "counts": {**COUNTS, "dead_letters": 0}}}, "COMPLETED", {"progress"}),
        ("success", {"return_value": RESULT}, "COMPLETED_WITH_ERROR", {"progress"}),
        # As another XCom backend, or a task that a user marked as success, leaves it.
        ("success", {"return_value": "s3://xcoms/1"}, "COMPLETED", set()),
        ("success", {"return_value": json.dumps(RESULT)}, "COMPLETED_WITH_ERROR", {"progress"}),
        ("success", {}, "COMPLETED", set()),
        ("failed", {"error": "the index is blocked"}, "FAILED", {"error"}),
        ("failed", {}, "FAILED", {"error"}),
    ],
)
def test_a_run_is_a_task_in_the_states_of_ml_commons(  # noqa: PLR0917 - a table
    api: Api, start: Callable[[], str], run_state: str, xcoms: dict[str, Any], state: str, more: set[str]
) -> None:
    """Documented members, and progress and error where there are any."""
    run_id = start()
    airflow_runs.set_state(run_id, run_state, **xcoms)
    task = api.ok("GET", f"tasks/{run_id}")
    assert set(task) == {"task_type", "state", "create_time", "last_update_time", "is_async", *more}
    assert (task["task_type"], task["state"], task["is_async"]) == ("BATCH_INGEST", state, True)
    assert 1_700_000_000_000 < task["create_time"] <= task["last_update_time"]
    if "progress" in more and state == "COMPLETED_WITH_ERROR":
        assert task["progress"] == {**COUNTS, "report": "s3://w/r.json"}
    if state == "FAILED":
        assert task["error"] == xcoms.get("error") or "it was killed, timed out" in task["error"]


def test_a_run_at_work_shows_its_last_checkpoint(api: Api, start: Callable[[], str], s3_client: Any) -> None:
    """Read from the object that the task named; one of an earlier run of the same request is done, and not shown."""
    run_id, location = start(), f"s3://opensearch-batch/{uuid.uuid4().hex}/progress.json"
    airflow_runs.set_state(run_id, "running", progress=location)
    assert "progress" not in api.ok("GET", f"tasks/{run_id}")
    counts = IngestCounts(read=7, indexed=5, dead_letters=2)
    for done in (False, True):
        progress = Progress("f", "000001-a", done=done, settled=7, counts=counts, dead_letters="s3://w/l/")
        save(S3Objects(s3_client), location, progress)
        shown = api.ok("GET", f"tasks/{run_id}").get("progress", {})
        assert (shown.get("read"), shown.get("indexed"), shown.get("dead_letters")) == (
            (None, None, None) if done else (7, 5, 2)
        )


@pytest.mark.parametrize("route", ["_cancel", "_cancel_batch"])
def test_a_run_is_cancelled(api: Api, start: Callable[[], str], route: str) -> None:
    """Its task is stopped, the note says by whom, and a second cancel says that it has ended."""
    run_id = start()
    assert api.ok("POST", f"tasks/{run_id}/{route}") == {"status": "OK"}
    assert airflow_runs.run_of(run_id)["state"] == "failed"
    assert airflow_runs.run_of(run_id)["note"] == "cancelled over the API by op"
    assert api.ok("GET", f"tasks/{run_id}")["state"] == "CANCELLED"
    assert "has ended" in api.refused(400, "POST", f"tasks/{run_id}/{route}")


def test_a_cancelled_run_that_a_user_starts_again_may_fail(api: Api, start: Callable[[], str]) -> None:
    """Its note stays, but tells of its earlier start."""
    run_id = start()
    api.ok("POST", f"tasks/{run_id}/_cancel")
    token = api.client.post("/auth/token", json={"username": "op", "password": "op-päss:word"}).json()["access_token"]
    cleared = api.client.post(
        f"/api/v2/dags/batch_ingestion/dagRuns/{run_id}/clear",
        json={"dry_run": False},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert cleared.status_code == 200, cleared.text
    assert api.ok("GET", f"tasks/{run_id}")["state"] == "CREATED"
    airflow_runs.set_state(run_id, "failed")
    assert api.ok("GET", f"tasks/{run_id}")["state"] == "FAILED"
    assert airflow_runs.run_of(run_id)["note"] == "cancelled over the API by op"


@pytest.mark.parametrize("task_id", ["batch_ingest.unknown", "manual__2026-01-01T00:00:00+00:00", "a b", "é"])
def test_a_run_that_does_not_exist_is_not_found(api: Api, node: MLNode, task_id: str) -> None:
    """The cluster is not asked."""
    assert "Failed to find task" in api.refused(404, "GET", f"tasks/{task_id}")
    assert "Failed to find task" in api.refused(404, "POST", f"tasks/{task_id}/_cancel")
    assert node.asked == []


def test_a_run_that_a_user_started_in_airflow_is_a_task_too(api: Api) -> None:
    """Its id has colons; one whose id could be ML Commons' is none."""
    token = api.client.post("/auth/token", json={"username": "op", "password": "op-päss:word"}).json()["access_token"]
    for run_id in (None, ML_TASK):
        body = {"logical_date": None, "conf": DOCUMENTED_SINGLE} | ({"dag_run_id": run_id} if run_id else {})
        headers = {"Authorization": f"Bearer {token}"}
        started = api.client.post("/api/v2/dags/batch_ingestion/dagRuns", json=body, headers=headers)
        assert started.status_code == 200, started.text
    found = api.ok("POST", "tasks/_search", {})["hits"]["hits"]
    (task_id,) = [hit["_id"] for hit in found]
    assert task_id.startswith("manual__")
    assert api.ok("GET", f"tasks/{task_id}")["state"] == "CREATED"
    assert api.refused(404, "GET", f"tasks/{ML_TASK}") == "Failed to find task"


def test_a_task_of_ml_commons_is_passed_on_with_its_progress(api: Api, node: MLNode) -> None:
    """Counts of the service, which 2.19 writes as 3.0."""
    job = {"id": "batch_1", "status": "in_progress", "request_counts": {"total": 3.0, "completed": 2.0, "failed": 0.0}}
    node.add(ML_TASK, remote_job=job)
    node.add("aaaaaaaaaaaaaaaaaaaa")
    task = api.ok("GET", f"tasks/{ML_TASK}")
    assert task == {**node.tasks[ML_TASK], "progress": {"total": 3, "completed": 2, "failed": 0}}
    assert api.ok("GET", "tasks/aaaaaaaaaaaaaaaaaaaa") == node.tasks["aaaaaaaaaaaaaaaaaaaa"]


def test_errors_of_ml_commons_are_passed_on(api: Api, node: MLNode) -> None:
    """But not that our own connection has a wrong password: the client's is right."""
    assert api.refused(404, "GET", "tasks/none") == "Failed to find task"
    assert "Failed to find task" in api.refused(404, "POST", "tasks/none/_cancel")
    node.answers = [refusal(403, "no permissions for [cluster:admin/opensearch/ml/tasks/get]")]
    assert "no permissions" in api.refused(403, "GET", f"tasks/{ML_TASK}")
    node.answers = [refusal(401, "Unauthorized")]
    assert "wrong user or password (401)" in api.refused(503, "GET", f"tasks/{ML_TASK}")
    node.answers = [refusal(500, "Fail to search")]
    assert api.refused(500, "POST", "tasks/_search", {}) == "Fail to search"


def test_a_batch_job_is_cancelled_by_ml_commons(api: Api, node: MLNode) -> None:
    """Both routes are those of some version."""
    node.add(ML_TASK)
    assert api.ok("POST", f"tasks/{ML_TASK}/_cancel_batch") == {"status": "OK"}
    assert node.asked == [f"POST tasks/{ML_TASK}/_cancel"]


def test_one_search_finds_runs_and_tasks(api: Api, node: MLNode, start: Callable[[], str]) -> None:
    """In the documented shape, newest first."""
    node.add(ML_TASK, remote_job={"id": "b", "request_counts": {"total": 2}})
    run_ids = [start(), start()]
    answer = api.ok("GET", "tasks/_search", {"query": {"match_all": {}}})
    assert set(answer) == {"took", "timed_out", "_shards", "hits"}
    assert answer["hits"]["total"] == {"value": 3, "relation": "eq"}
    assert answer["hits"]["max_score"] == 0.0
    hits = answer["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == [run_ids[1], run_ids[0], ML_TASK]
    assert [(hit["_index"], hit["_score"]) for hit in hits] == [(".plugins-ml-task", 0.0)] * 3
    assert [hit["_source"]["task_type"] for hit in hits] == ["BATCH_INGEST", "BATCH_INGEST", "BATCH_PREDICTION"]
    assert hits[2]["_source"]["progress"] == {"total": 2}
    assert "sort" not in hits[0]


def test_a_search_has_conditions_an_order_and_a_window(api: Api, node: MLNode, start: Callable[[], str]) -> None:
    """The window is that of the merged hits, and the total counts all."""
    for number in range(3):
        node.add(f"{number}" * 20, create_time=number)
    run_ids = sorted(start() for _ in range(3))
    body: dict[str, Any] = {"sort": [{"task_type": "desc"}, {"_id": {"order": "asc"}}], "from": 2, "size": 2}
    found = api.ok("POST", "tasks/_search", {**body, "_source": ["state"]})["hits"]
    assert found["total"]["value"] == 6
    assert found["max_score"] is None
    assert [hit["_id"] for hit in found["hits"]] == ["2" * 20, run_ids[0]]
    assert found["hits"][1]["sort"] == ["BATCH_INGEST", run_ids[0]]
    assert found["hits"][1]["_source"] == {"state": "CREATED"}
    airflow_runs.set_state(run_ids[0], "running")
    body = {"query": {"bool": {"filter": [{"term": {"task_type": "BATCH_INGEST"}}, {"term": {"state": "RUNNING"}}]}}}
    # The stand-in of the node matches everything.
    hits = [hit for hit in api.ok("POST", "tasks/_search", body)["hits"]["hits"] if "." in hit["_id"]]
    assert [hit["_id"] for hit in hits] == [run_ids[0]]


def test_hits_without_a_value_are_last_in_either_direction(api: Api, node: MLNode, start: Callable[[], str]) -> None:
    """Runs have no model."""
    node.add(ML_TASK)
    run_id = start()
    for direction in ("asc", "desc"):
        found = api.ok("POST", "tasks/_search", {"sort": {"model_id": direction}})["hits"]["hits"]
        assert [(hit["_id"], hit["sort"]) for hit in found] == [(ML_TASK, [MODEL]), (run_id, [None])]


def test_before_the_first_task_of_ml_commons_there_are_runs_only(
    api: Api, node: MLNode, start: Callable[[], str]
) -> None:
    """The index of its tasks does not exist then."""
    node.has_index = False
    assert api.ok("POST", "tasks/_search", {})["hits"]["max_score"] is None
    run_id = start()
    assert [hit["_id"] for hit in api.ok("POST", "tasks/_search", {})["hits"]["hits"]] == [run_id]


def test_a_search_looks_at_a_bounded_number_of_runs(
    api: Api, start: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest; that there are more makes the total a lower bound."""
    from opensearch_batch.ui import task_search

    monkeypatch.setattr(task_search, "MAX_RUNS", 2)
    run_ids = [start() for _ in range(3)]
    found = api.ok("POST", "tasks/_search", {})["hits"]
    assert found["total"] == {"value": 2, "relation": "gte"}
    assert [hit["_id"] for hit in found["hits"]] == [run_ids[2], run_ids[1]]
    airflow_runs.delete_runs(run_ids[0])
    assert api.ok("POST", "tasks/_search", {})["hits"]["total"] == {"value": 2, "relation": "eq"}


def test_an_invalid_search_asks_nobody(api: Api, node: MLNode) -> None:
    """Errors have the type that OpenSearch gives them."""
    response = api.call("POST", "tasks/_search", {"query": {"fuzzy": {}}})
    assert (response.status_code, response.json()["error"]["type"]) == (400, "parsing_exception")
    assert node.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("a detail"), 500), (OperationalError("select", {}, Exception("a detail")), 503)],
)
def test_an_error_of_the_server_tells_no_details(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    """They are in its log."""

    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr("opensearch_batch.ui.api.search_tasks", fail)
    response = api.call("POST", "tasks/_search", {})
    assert (response.status_code, response.json()["status"]) == (status, status)
    assert ("Retry-After" in response.headers) == (status == 503)
    assert "a detail" not in response.text


def test_answers_are_pretty_on_request(api: Api, start: Callable[[], str]) -> None:
    """As those of OpenSearch."""
    run_id = start()
    for parameter, lines in (("", 0), ("?pretty", 7), ("?pretty=true", 7), ("?pretty=false", 0)):
        assert api.call("GET", f"tasks/{run_id}{parameter}").text.count("\n") == lines


def test_unknown_paths_are_answered_as_opensearch_does(api: Api) -> None:
    """The reason tells what there is."""
    reason = api.refused(400, "GET", "models/m")
    assert reason.startswith("no handler found for uri [/_plugins/_ml/models/m] and method [GET]")
    assert "no handler found" in api.refused(400, "GET", "_batch_ingestion")
