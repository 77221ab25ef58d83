"""`_batch_ingestion` over the API: the documented answer, the run, back-pressure, and the life of a credential."""

from __future__ import annotations

import gzip
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opensearch_batch.core.ingest.batch_ingestion import parse_request
from tests.documented_requests import DOCUMENTED_MULTIPLE, DOCUMENTED_SINGLE
from tests.ui import airflow_runs
from tests.ui.api_server import Api
from tests.waiting import eventually

if TYPE_CHECKING:
    from fastapi import FastAPI

INGEST = "_batch_ingestion"
AWS_KEYS = ("access_key", "secret_key", "session_token")


@pytest.fixture(autouse=True)
def _no_runs(api: Api) -> Iterator[None]:  # noqa: ARG001 - its database
    airflow_runs.delete_runs()
    yield
    airflow_runs.delete_runs()


def credential(*names: str) -> dict[str, str]:
    """Make a credential whose values occur nowhere else."""
    return {name: f"{name}-{uuid.uuid4().hex}" for name in names}


@pytest.mark.parametrize("body", [DOCUMENTED_SINGLE, DOCUMENTED_MULTIPLE])
def test_a_documented_request_starts_a_run_with_the_same_conf(api: Api, body: dict[str, Any]) -> None:
    """The answer is the documented one; the audit names who asked."""
    answer = api.ok("POST", INGEST, body)
    task_id = answer.pop("task_id")
    assert answer == {"task_type": "BATCH_INGEST", "status": "CREATED"}
    assert airflow_runs.run_of(task_id) == {"conf": body, "state": "queued", "user": "op", "note": None}


def test_ids_are_not_those_of_opensearch_and_not_to_be_guessed(api: Api) -> None:
    """An id of OpenSearch has no dot; 128 bits of each id are random."""
    first, second = (api.ok("POST", INGEST, DOCUMENTED_SINGLE)["task_id"] for _ in range(2))
    assert first != second
    for task_id in (first, second):
        prefix, _, rest = task_id.partition(".")
        assert (prefix, len(rest)) == ("batch_ingest", 22)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"index_name": None}, "request: index_name: expected a string"),
        ({"index_name": "Upper"}, "names are lower case"),
        ({"data_source": {"type": "s3", "source": []}}, "data_source.source is empty"),
        ({"data_source": {"type": "local", "source": ["rows.jsonl"]}}, "would read the worker's own files"),
        ({"work_prefix": "/files"}, "is not an S3 location"),
        ({"dead_letters": "/files"}, "is not an S3 location"),
        ({"indexname": "x"}, "indexname: no such member. Did you mean 'index_name'?"),
        ({"source_conn_id": "aws_default"}, "source_conn_id: no such member"),
    ],
)
def test_an_invalid_request_starts_nothing(api: Api, change: dict[str, Any], reason: str) -> None:
    """The reason names the member; connections are an administrator's choice."""
    assert reason in api.refused(400, "POST", INGEST, {**DOCUMENTED_SINGLE, **change})
    assert airflow_runs.count_runs() == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"a": "\\u0000"}', b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(api: Api, content: bytes) -> None:
    """Whatever it is instead."""
    headers = {"Content-Type": "application/json"}
    assert api.refused(400, "POST", INGEST, headers=headers, content=content)


def test_a_body_of_another_type_is_refused_as_opensearch_does(api: Api) -> None:
    """A form of another site's page cannot send JSON."""
    headers = {"Content-Type": "text/plain"}
    content = json.dumps(DOCUMENTED_SINGLE)
    reason = api.refused(406, "POST", INGEST, headers=headers, content=content)
    assert reason == "Content-Type header [text/plain] is not supported; send application/json"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_body_has_a_maximum_size(api: Api, pack: Callable[[bytes], bytes]) -> None:
    """One of a bomb, too; a compressed body within the limit is accepted."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip" if pack is gzip.compress else "identity"}
    small = json.dumps(DOCUMENTED_SINGLE).encode()
    assert api.call("POST", INGEST, headers=headers, content=pack(small)).status_code == 200
    large = json.dumps({**DOCUMENTED_SINGLE, "index_name": "i" * 2_000_000}).encode()
    assert "1000000 bytes" in api.refused(413, "POST", INGEST, headers=headers, content=pack(large))


def test_a_full_queue_refuses_with_the_time_to_wait(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that have begun do not count; the reason names the setting."""
    monkeypatch.setenv("AIRFLOW__OPENSEARCH_BATCH__MAX_QUEUED_REQUESTS", "2")
    begun, *_ = [api.ok("POST", INGEST, DOCUMENTED_SINGLE)["task_id"] for _ in range(2)]
    response = api.call("POST", INGEST, DOCUMENTED_SINGLE)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "30")
    assert "Exceeded maximum limit for BATCH_INGEST tasks: 2 are queued" in response.json()["error"]["reason"]
    airflow_runs.set_state(begun, "running")
    assert api.ok("POST", INGEST, DOCUMENTED_SINGLE)


def test_more_requests_at_once_than_are_served_are_refused(root: FastAPI, api: Api) -> None:
    """They do not queue: the api-server's threads serve heartbeats of tasks, too."""
    from airflow.models.dagbag import DBDagBag

    (mounted,) = (route.app for route in root.routes if getattr(route, "path", "") == "/_plugins/_ml")  # type: ignore[attr-defined] # a Mount
    bag, entered, go_on = mounted.state.dag_bag, threading.Semaphore(0), threading.Event()

    class Slow(DBDagBag):
        def get_latest_version_of_dag(self, *args: Any, **kwargs: Any) -> Any:
            entered.release()
            assert go_on.wait(60)
            return bag.get_latest_version_of_dag(*args, **kwargs)

    mounted.state.dag_bag = Slow()
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(api.call("POST", INGEST, DOCUMENTED_SINGLE).status_code))
        for _ in range(4)
    ]
    try:
        for thread in threads:
            thread.start()
            assert entered.acquire(timeout=60)
        response = api.call("POST", INGEST, DOCUMENTED_SINGLE)
        assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
        mounted.state.dag_bag = bag
    assert statuses == [200] * 4


def test_a_paused_dag_takes_no_requests(api: Api) -> None:
    """A run of it would wait for ever."""
    with airflow_runs.dag_changed(is_paused=True):
        assert "is paused" in api.refused(503, "POST", INGEST, DOCUMENTED_SINGLE)
    assert airflow_runs.count_runs() == 0


def test_the_configured_work_prefix_is_that_of_the_run(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the request has its own."""
    monkeypatch.setenv("AIRFLOW__OPENSEARCH_BATCH__WORK_PREFIX", "s3://ours/work")
    for own, expected in (({}, "s3://ours/work"), ({"work_prefix": "s3://b/w"}, "s3://b/w")):
        task_id = api.ok("POST", INGEST, {**DOCUMENTED_SINGLE, **own})["task_id"]
        assert airflow_runs.run_of(task_id)["conf"]["work_prefix"] == expected


def test_the_credential_of_s3_becomes_an_encrypted_connection_of_the_run(api: Api, settings: dict[str, str]) -> None:
    """Its addresses are those of the default connection, its keys the request's; the conf names it."""
    keys = {**credential(*AWS_KEYS), "region": "eu-west-1"}
    task_id = api.ok("POST", INGEST, {**DOCUMENTED_SINGLE, "credential": keys})["task_id"]
    conn_id = airflow_runs.run_of(task_id)["conf"]["source_conn_id"]
    assert airflow_runs.run_of(task_id)["conf"] == {**DOCUMENTED_SINGLE, "source_conn_id": conn_id}
    conn = airflow_runs.connections()[conn_id]
    assert (conn.conn_type, conn.login, conn.password, conn.is_extra_encrypted) == ("aws", None, None, True)
    assert conn.extra_dejson == {
        "service_config": json.loads(settings["AIRFLOW_CONN_AWS_DEFAULT"])["extra"]["service_config"],
        "region_name": "eu-west-1",
        "aws_access_key_id": keys["access_key"],
        "aws_secret_access_key": keys["secret_key"],
        "aws_session_token": keys["session_token"],
    }


def test_the_credential_of_openai_keeps_the_configured_address(api: Api) -> None:
    """The key of the platform is not that of the request."""
    key = credential("openAI_key")
    task_id = api.ok("POST", INGEST, {**DOCUMENTED_MULTIPLE, "credential": key})["task_id"]
    conn = airflow_runs.connections()[airflow_runs.run_of(task_id)["conf"]["source_conn_id"]]
    assert (conn.conn_type, conn.host, conn.password) == ("http", "http://127.0.0.1:9/v1", key["openAI_key"])
    assert conn.is_encrypted


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (DOCUMENTED_SINGLE, {"openAI_key": "sk-unseen"}),
        (DOCUMENTED_SINGLE, {"access_key": "sk-unseen"}),
        (DOCUMENTED_MULTIPLE, {"access_key": "sk-unseen", "secret_key": "sk-unseen"}),
        (DOCUMENTED_SINGLE, {"accesskey": "sk-unseen"}),
        (DOCUMENTED_SINGLE, "sk-unseen"),
        (DOCUMENTED_SINGLE, ["sk-unseen"]),
        (DOCUMENTED_SINGLE, {"access_key": ["sk-unseen"]}),
    ],
)
def test_a_credential_that_does_not_fit_is_refused_and_not_repeated(api: Api, body: dict[str, Any], keys: Any) -> None:
    """Nothing is started or stored."""
    reason = api.refused(400, "POST", INGEST, {**body, "credential": keys})
    assert "credential" in reason
    assert "sk-unseen" not in reason
    assert (airflow_runs.count_runs(), airflow_runs.connections()) == (0, {})


@pytest.mark.parametrize("empty", [None, {}])
def test_without_a_credential_the_run_uses_the_connections_of_airflow(api: Api, empty: Any) -> None:
    """An empty one is none."""
    task_id = api.ok("POST", INGEST, {**DOCUMENTED_SINGLE, "credential": empty})["task_id"]
    assert airflow_runs.run_of(task_id)["conf"] == DOCUMENTED_SINGLE
    assert airflow_runs.connections() == {}


def test_a_credential_that_would_be_stored_in_plain_text_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow without a Fernet key encrypts nothing."""
    from airflow.models.crypto import get_fernet

    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "")
    get_fernet.cache_clear()
    try:
        body = {**DOCUMENTED_SINGLE, "credential": credential(*AWS_KEYS)}
        assert "no fernet_key" in api.refused(400, "POST", INGEST, body)
    finally:
        get_fernet.cache_clear()
    assert (airflow_runs.count_runs(), airflow_runs.connections()) == (0, {})


def test_a_refused_run_leaves_no_credential(api: Api) -> None:
    """Both are stored in one transaction."""
    body = {**DOCUMENTED_SINGLE, "credential": credential(*AWS_KEYS)}
    with airflow_runs.dag_changed(has_import_errors=True):
        assert "has import errors" in api.refused(400, "POST", INGEST, body)
    assert (airflow_runs.count_runs(), airflow_runs.connections()) == (0, {})


@pytest.mark.parametrize("end", ["success", "failed", "deleted", "cancelled"])
def test_a_credential_is_removed_when_its_run_ends_however_it_ends(
    api: Api, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a run that goes on stays, and so does what an administrator stored."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    from opensearch_batch.ui import run_credentials

    monkeypatch.setattr(run_credentials, "SWEEP_EVERY_S", 0.01)
    body = {**DOCUMENTED_SINGLE, "credential": credential(*AWS_KEYS)}
    ended, alive = (api.ok("POST", INGEST, body)["task_id"] for _ in range(2))
    airflow_runs.set_state(alive, "running")
    # An underscore in SQL's LIKE is any character.
    other = "opensearchXbatchXrun.batchXingestion.mine"
    with create_session(scoped=False) as session:
        session.add(Connection(conn_id=other, conn_type="aws"))
    kept = {airflow_runs.run_of(alive)["conf"]["source_conn_id"], other}
    try:
        if end == "deleted":
            airflow_runs.delete_runs(ended)
        elif end == "cancelled":
            api.ok("POST", f"tasks/{ended}/_cancel")
        else:
            airflow_runs.set_state(ended, end)
        run_credentials.remove_credentials_of_ended_runs()
        assert set(airflow_runs.connections()) == kept
    finally:
        with create_session(scoped=False) as session:
            session.delete(session.merge(airflow_runs.connections()[other]))


def test_the_server_looks_for_ended_runs_by_itself(
    root: FastAPI, api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At its start and again and again; a database that fails for a while does not end that."""
    from fastapi.testclient import TestClient
    from sqlalchemy.exc import OperationalError

    from opensearch_batch.ui import run_credentials

    monkeypatch.setattr(run_credentials, "SWEEP_EVERY_S", 0.01)
    task_id = api.ok("POST", INGEST, {**DOCUMENTED_SINGLE, "credential": credential(*AWS_KEYS)})["task_id"]
    sweep, failures = run_credentials.remove_credentials_of_ended_runs, [1]

    def failing() -> int:
        if failures:
            raise OperationalError("select", {}, Exception(f"down {failures.pop()}"))
        return sweep()

    monkeypatch.setattr(run_credentials, "remove_credentials_of_ended_runs", failing)
    with TestClient(root):
        eventually(lambda: not failures, "a sweep that fails")
        assert airflow_runs.connections()
        airflow_runs.set_state(task_id, "success")
        eventually(lambda: not airflow_runs.connections(), "the removal of the credential")
    assert "could not look for credentials of ended runs" in caplog.text


def test_nothing_of_a_credential_is_left_or_shown(
    api: Api, sign_in: Callable[[str | None], Api], capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in the database's file, with its unused pages, nor in the logs, nor in any answer, nor in the audit."""
    keys = credential(*AWS_KEYS)
    task_id = api.ok("POST", INGEST, {**DOCUMENTED_SINGLE, "credential": keys})["task_id"]
    conn_id = airflow_runs.run_of(task_id)["conf"]["source_conn_id"]
    admin = sign_in("admin")
    token = admin.client.post("/auth/token", json={"username": "admin", "password": "admin-päss:word"}).json()
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    paths = [f"dags/batch_ingestion/dagRuns/{task_id}", f"connections/{conn_id}", "connections", "eventLogs"]
    shown = [admin.client.get(f"/api/v2/{path}", headers=headers) for path in paths]
    assert [each.status_code for each in shown] == [200] * len(paths)
    assert task_id in shown[-1].text
    shown.append(api.call("GET", f"tasks/{task_id}"))
    logs = [path for path in Path(os.environ["AIRFLOW_HOME"]).rglob("*") if path.is_file() and path.suffix != ".db"]
    for value in keys.values():
        assert not [each.text for each in shown if value in each.text]
        assert value.encode() not in airflow_runs.database()
        assert not [path for path in logs if value.encode() in path.read_bytes()]
    airflow_runs.set_state(task_id, "success")
    printed = "".join(capfd.readouterr())
    assert not [value for value in keys.values() if value in printed]


def test_the_example_of_a_swapped_credential_is_understood(api: Api) -> None:
    """OpenSearch 2.19 reads region and token from each other's member, so requests for it have them swapped."""
    keys = {**credential("access_key", "secret_key"), "session_token": "us-east-1", "region": "token-of-the-test"}
    task_id = api.ok("POST", INGEST, {**DOCUMENTED_SINGLE, "credential": keys})["task_id"]
    conn = airflow_runs.connections()[airflow_runs.run_of(task_id)["conf"]["source_conn_id"]]
    parsed = parse_request({**DOCUMENTED_SINGLE, "credential": keys}).credential
    assert parsed is not None
    assert (conn.extra_dejson["region_name"], conn.extra_dejson["aws_session_token"]) == (parsed.region, parsed.token)
    assert parsed.region == "us-east-1"
