"""A `_batch_ingestion` request as a run's conf over REST, on a real stack: documents, dead letters, refusals."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from include.local_stack.airflow_api import AirflowAPI
from tests.end_to_end.ingestion_runs import FIELD_MAP, VECTOR, FilesAPI, Runs, files_with
from tests.lab import Lab
from tests.stored import content


@pytest.fixture(scope="module", autouse=True)
def _dags(lab: Lab) -> None:
    """Both DAGs are parsed."""
    for dag_id in ("batch_ingestion", "replay"):
        lab.stack.airflow_api().wait_for_dag(dag_id)


@pytest.fixture
def openai() -> Iterator[FilesAPI]:
    """Files at OpenAI."""
    api = FilesAPI()
    yield api
    api.close()


@pytest.fixture
def runs(lab: Lab, airflow: AirflowAPI, bucket: str, index: str) -> Runs:
    """Runs that read from a bucket and write to an index of their own."""
    return Runs(lab, airflow, bucket, index)


def row(number: int, **more: Any) -> dict[str, Any]:
    """Make a row as SageMaker's batch transform gives it."""
    vectors = [[number, 1.5], [2.5, number]]
    return {"SageMakerOutput": vectors, "content": [f"chapter {number}", f"title {number}"], "id": number, **more}


def batch_row(number: int) -> dict[str, Any]:
    """Make a row of an output file as OpenAI's Batch API gives it."""
    body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [number, 1.5]}]}
    response = {"status_code": 200, "request_id": "q", "body": body}
    return {"id": f"batch_req_{number}", "custom_id": f"r-{number}", "response": response, "error": None}


def document(number: int, **more: Any) -> dict[str, Any]:
    """Make the document that the documented request makes of a row."""
    return {
        "chapter": f"chapter {number}",
        "title": f"title {number}",
        "chapter_embedding": [number, 1.5],
        "title_embedding": [2.5, number],
        "id": number,
        **more,
    }


def test_a_request_arrives_as_documents_and_again_writes_nothing(runs: Runs) -> None:
    """The documented body, sent as conf: every row is a document; a second run and a clear write nothing more."""
    request = runs.request(runs.rows("rows.jsonl", [row(number) for number in range(1, 26)]))
    first = runs.run("batch_ingestion", request)
    returned = runs.returned(first)
    assert (returned["index"], returned["state"], returned["dead_letters"]) == (runs.index, "DONE", None)
    assert (returned["counts"]["read"], returned["counts"]["indexed"]) == (25, 25)
    assert runs.documents() == {str(number): document(number) for number in range(1, 26)}
    assert json.loads(content(runs.lab.objects, returned["report"]))["counts"]["sources"] == [
        {
            "source": f"s3://{runs.bucket}/rows.jsonl",
            "read": 25,
            "blank": 0,
            "dead_letters": 0,
            "duplicates": 0,
            "unmatched": 0,
        }
    ]
    assert runs.writes() == 25

    again = runs.succeeded("batch_ingestion", request)
    assert (again["counts"]["read"], again["counts"]["indexed"], again["counts"]["unchanged"]) == (25, 0, 25)
    body = {"dry_run": False, "dag_run_id": first["dag_run_id"], "only_failed": False}
    runs.airflow.call("POST", "dags/batch_ingestion/clearTaskInstances", body)
    cleared = runs.ended("batch_ingestion", first["dag_run_id"])
    assert (cleared["state"], cleared["try_number"]) == ("success", 2)
    assert runs.returned(cleared)["counts"]["unchanged"] == 25
    assert runs.writes() == 25

    forced = runs.succeeded("batch_ingestion", {**request, "force": True})
    assert forced["counts"]["read"] == 25
    assert runs.writes() == 50


@pytest.mark.slow
def test_dead_letters_are_replayed_after_a_fix(runs: Runs) -> None:
    """A row the index refuses is a dead letter; with a mended field map its replay indexes it and empties the queue."""
    rows = [row(1, year=1997, published=1997), row(2, year="long ago", published=1954)]
    field_map = {**FIELD_MAP, "year": "$.year"}
    request = runs.request(runs.rows("rows.jsonl", rows), field_map=field_map, max_dead_letters="50%")
    first = runs.succeeded("batch_ingestion", request)
    assert (first["state"], first["counts"]["indexed"], first["counts"]["dead_letters"]) == (
        "DONE_WITH_DEAD_LETTERS",
        1,
        1,
    )
    assert set(runs.documents()) == {"1"}
    queue = first["dead_letters"]

    unmended = runs.run("replay", {"queue": queue})
    assert unmended["state"] == "failed"
    mended = runs.succeeded("replay", {"queue": queue, "field_map": {**field_map, "year": "$.published"}})
    assert (mended["index"], mended["read"], mended["indexed"], mended["dead_letters"]) == (runs.index, 1, 1, 0)
    assert runs.documents() == {"1": document(1, year=1997), "2": document(2, year=1954)}

    writes = runs.writes()
    again = runs.succeeded("batch_ingestion", request)
    assert (again["state"], again["counts"]["unchanged"], again["dead_letters"]) == ("DONE", 2, None)
    assert runs.writes() == writes
    task = runs.run("replay", {"queue": queue})
    assert (task["state"], task["try_number"]) == ("failed", 1)
    assert "no dead letters there" in runs.airflow.log(task)


@pytest.mark.slow
def test_a_killed_task_goes_on_where_it_stopped(runs: Runs) -> None:
    """The retry of a task whose process was killed writes what was not settled, and nothing of the rest again."""
    total = 100_000
    source = runs.rows("rows.jsonl", [{"id": number, "text": f"row {number}"} for number in range(total)])
    request = {
        "index_name": runs.index,
        "field_map": {"_id": "$.id", "text": "$.text"},
        "data_source": {"type": "s3", "source": [source]},
        "work_prefix": f"s3://{runs.bucket}/work",
        "max_body_bytes": 50_000,
        "max_in_flight": 1,
    }
    run_id = runs.airflow.trigger("batch_ingestion", request)
    settled = runs.kill("batch_ingestion", run_id)
    task = runs.ended("batch_ingestion", run_id)
    assert (task["state"], task["try_number"]) == ("success", 2), runs.airflow.log(task)
    counts = runs.returned(task)["counts"]
    assert (counts["read"], counts["indexed"] + counts["unchanged"]) == (total, total)
    assert runs.lab.node("GET", f"{runs.index}/_count")["count"] == total
    assert 0 < settled < total
    assert total <= runs.writes() < 2 * total - settled


def test_a_credential_is_refused_before_a_run_exists_and_kept_nowhere(runs: Runs) -> None:
    """The answer says where keys belong and repeats none; neither database nor logs hold one, the audit masks all."""
    names = ["access_key", "secret_key", "session_token", "openAI_key"]
    credential = {name: f"{name}-{uuid.uuid4().hex}" for name in names}
    before = runs.airflow.call("GET", "dags/batch_ingestion/dagRuns")["total_entries"]
    answer = runs.refused("batch_ingestion", {**runs.request("s3://b/rows.jsonl"), "credential": credential})
    assert answer.startswith("Invalid input for param credential: 'no credential is accepted: Airflow would store it.")
    assert "aws_conn_id for S3, openai_conn_id for OpenAI" in answer
    assert runs.airflow.call("GET", "dags/batch_ingestion/dagRuns")["total_entries"] == before
    for secret in credential.values():
        assert secret not in answer
        assert files_with(runs.lab, secret) == []
    assert audited(runs.lab)["conf"]["credential"] == dict.fromkeys(names, "***")


def test_the_audit_masks_each_key_wherever_it_stands(runs: Runs) -> None:
    """A refused body that holds the keys in another place than the documented one is masked by their names."""
    secret = f"sk-{uuid.uuid4().hex}"
    source = {"type": "s3", "source": ["s3://b/rows.jsonl"], "openAI_key": secret}
    assert secret not in runs.refused("batch_ingestion", runs.request(data_source=source))
    assert files_with(runs.lab, secret) == []
    assert audited(runs.lab)["conf"]["data_source"]["openAI_key"] == "***"


def test_a_credential_that_is_a_text_is_quoted_to_who_sent_it_and_kept_nowhere(runs: Runs) -> None:
    """Airflow's answer repeats a value of the wrong type; it goes to the sender alone."""
    secret = f"sk-{uuid.uuid4().hex}"
    assert f"Invalid input for param credential: '{secret}' is not of type" in runs.refused(
        "batch_ingestion", runs.request("s3://b/rows.jsonl", credential=secret)
    )
    assert files_with(runs.lab, secret) == []
    assert audited(runs.lab)["conf"]["credential"] == "***"


@pytest.mark.slow
def test_a_credential_under_another_name_fails_the_run_and_stays_in_it(runs: Runs) -> None:
    """Airflow takes any other member of a conf: the run is refused by its task, and Airflow keeps what was sent."""
    secret = f"sk-{uuid.uuid4().hex}"
    log = runs.failed(runs.request("s3://b/rows.jsonl", credentials={"openAI_key": secret}))
    assert "request: credentials: no such member. Did you mean 'credential'?" in log
    assert secret not in log
    assert {Path(name).name.partition("-")[0] for name in files_with(runs.lab, secret)} == {"airflow.db"}


@pytest.mark.parametrize(
    "source", [{"type": "local", "source": ["rows.jsonl"]}, {"type": "s3", "source": ["/etc/passwd"]}]
)
def test_files_of_the_worker_are_refused_before_a_run_exists(runs: Runs, source: dict[str, Any]) -> None:
    """The answer says so."""
    answer = runs.refused("batch_ingestion", runs.request(data_source=source))
    assert "Invalid input for param data_source" in answer
    assert "it does not read files of the workers machine" in " ".join(
        answer.replace('"', "'").replace("'\n", "").replace("'", "").split()
    )


def test_a_name_without_a_path_is_no_local_file(runs: Runs) -> None:
    """What the schema cannot tell from a file id is refused by the task, at its first attempt."""
    log = runs.failed(runs.request(data_source={"type": "s3", "source": ["passwd"]}))
    assert "data_source.source[0]: 'passwd' is not an S3 location; write it as s3://bucket/key" in log


@pytest.mark.parametrize("setting", ["opensearch_conn_id", pytest.param("aws_conn_id", marks=pytest.mark.slow)])
def test_a_missing_connection_fails_at_once(runs: Runs, setting: str) -> None:
    """The log names the connection and its remedy; nothing is retried."""
    source = runs.rows("rows.jsonl", [row(1)])
    log = runs.failed(runs.request(source, **{setting: "nowhere"}))
    assert "no Airflow connection 'nowhere'" in log
    assert "under Admin, Connections" in log


@pytest.mark.slow
def test_files_at_openai_are_joined_and_the_key_stays_in_its_connection(
    runs: Runs, airflow: AirflowAPI, openai: FilesAPI
) -> None:
    """Output and input file of a batch become one document a request; the key comes from the connection alone."""
    openai.files["file-output"] = [batch_row(number) for number in range(3)]
    openai.files["file-input"] = [{"custom_id": f"r-{n}", "body": {"input": [f"question {n}"]}} for n in range(3)]
    connection = {"connection_id": "openai_of_the_test", "conn_type": "http", "host": f"{openai.url}/v1"}
    airflow.call("POST", "connections", {**connection, "password": openai.key})
    try:
        found = runs.succeeded(
            "batch_ingestion",
            {
                "index_name": runs.index,
                "field_map": {
                    "_id": ["source[0].$.custom_id", "source[1].$.custom_id"],
                    "question": "source[1].$.body.input[0]",
                    "embedding": "source[0].$.response.body.data[0].embedding",
                },
                "data_source": {"type": "openAI", "source": ["file-output", "file-input"]},
                "index_body": {
                    "settings": {"index.knn": True, "number_of_replicas": 0},
                    "mappings": {"properties": {"embedding": VECTOR}},
                },
                "openai_conn_id": "openai_of_the_test",
                "work_prefix": f"s3://{runs.bucket}/work",
            },
        )
    finally:
        airflow.call("DELETE", "connections/openai_of_the_test")
    assert (found["counts"]["read"], found["counts"]["indexed"], found["counts"]["joined"]) == (6, 3, 3)
    assert runs.documents() == {f"r-{n}": {"question": f"question {n}", "embedding": [n, 1.5]} for n in range(3)}
    assert files_with(runs.lab, openai.key) == []


@pytest.mark.slow
def test_a_missing_openai_connection_fails_only_where_it_is_needed(runs: Runs) -> None:
    """An S3 request needs none; an openAI request says which is missing."""
    source = runs.rows("rows.jsonl", [row(1)])
    assert runs.succeeded("batch_ingestion", runs.request(source, openai_conn_id="nowhere"))["counts"]["indexed"] == 1
    request = runs.request(data_source={"type": "openAI", "source": ["file-1"]}, openai_conn_id="nowhere")
    assert "no Airflow connection 'nowhere'; create one of type http" in runs.failed(request)


def audited(lab: Lab) -> dict[str, Any]:
    """Return what Airflow's audit table keeps of the newest request to start a run."""
    database = f"file:{lab.stack.home / 'airflow' / 'airflow.db'}?mode=ro"
    with closing(sqlite3.connect(database, uri=True)) as found:
        query = "select extra from log where event = 'trigger_dag_run' order by id desc limit 1"
        (extra,) = found.execute(query).fetchone()
    kept: dict[str, Any] = json.loads(extra)
    return kept
