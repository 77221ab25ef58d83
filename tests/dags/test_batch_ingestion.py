"""The DAG of a `_batch_ingestion` request: what its schema accepts and refuses, and the request of a run."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from airflow.sdk import Connection
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError

from include.local_stack.airflow import MASKED_WORDS
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.batch_ingestion import Credential, parse_request
from opensearch_batch.core.types.counts import IngestCounts, IngestReport, SourceCounts
from opensearch_batch.dag_factory.batch_ingestion import batch_ingestion_dag
from opensearch_batch.dag_factory.replay import replay_dag
from opensearch_batch.hooks.connections import base_url
from opensearch_batch.operators.base import report_xcom
from opensearch_batch.operators.batch_ingestion import (
    DATA_SOURCE_FIELDS,
    SETTINGS,
    OpenSearchBatchIngestionOperator,
    parse_remote_request,
    request_of,
)
from tests.documented_requests import DOCUMENTED_MULTIPLE, DOCUMENTED_SINGLE

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reference" / "batch_ingestion.md"
DAG, REPLAY = batch_ingestion_dag(), replay_dag()
KEYS = {"region": "us-east-1", "access_key": "AKIA-of-the-test", "secret_key": "one-secret", "session_token": "other"}


def checked(conf: dict[str, Any], params: ParamsDict = DAG.params) -> dict[str, Any]:
    """Return the params that Airflow makes of a run's conf."""
    made = copy.deepcopy(params)
    made.update(conf)
    return made.validate()


def refused(conf: dict[str, Any]) -> str:
    """Return the error for a conf that the schema refuses."""
    with pytest.raises(ParamValidationError, match="Invalid input for param") as error:
        checked(conf)
    return str(error.value)


@pytest.mark.parametrize("body", [DOCUMENTED_SINGLE, DOCUMENTED_MULTIPLE])
def test_a_documented_request_is_a_valid_conf(body: dict[str, Any]) -> None:
    """A documented request is accepted unchanged; no default of the form is added."""
    params = checked(body)
    assert request_of(body, params) == body
    assert parse_remote_request(request_of(body, params)) == parse_request(body)


@pytest.mark.parametrize("missing", ["index_name", "field_map", "data_source"])
def test_what_a_conf_leaves_out_is_not_taken_from_the_example(missing: str) -> None:
    """A member that a request omits is not added."""
    body = {name: value for name, value in DOCUMENTED_SINGLE.items() if name != missing}
    assert request_of({**body, "force": True, "credential": None}, checked(body)) == body


def test_a_run_without_conf_ingests_the_example() -> None:
    """The form's defaults are a valid request; settings alone do not change it."""
    example = request_of({}, checked({}))
    assert parse_remote_request(example).sources == ["s3://documents/passages/"]
    assert request_of({"force": True, "work_prefix": "s3://elsewhere"}, checked({"force": True})) == example


def test_the_form_asks_for_what_its_fields_say() -> None:
    """The form sends every field; type and source become the data source, empty fields are left out."""
    filled = {**checked({}), "index_name": "i", "type": "openAI", "source": ["file-1"], "field_map": {"_id": "$.id"}}
    assert request_of(filled, checked(filled)) == {
        "index_name": "i",
        "field_map": {"_id": "$.id"},
        "op_type": "index",
        "on_missing": "null",
        "on_unmatched": "index_partial",
        "max_dead_letters": "5%",
        "data_source": {"type": "openAI", "source": ["file-1"]},
    }


def test_a_whole_data_source_takes_the_place_of_the_two_fields() -> None:
    """data_source of the API's JSON wins over the fields of the form."""
    conf = {**checked({}), **DOCUMENTED_SINGLE}
    assert request_of(conf, checked(conf))["data_source"] == DOCUMENTED_SINGLE["data_source"]


def test_every_field_of_the_form_belongs_to_a_request_or_to_the_run() -> None:
    """Each field of the form is a member of the request, or a setting."""
    members = set(DAG.params) - SETTINGS - set(DATA_SOURCE_FIELDS)
    for name in members - {"credential"}:
        with pytest.raises(ConfigError, match=f"^request: (?!.*no such member).*{name}"):
            parse_request({**DOCUMENTED_SINGLE, name: object})


def test_the_confs_in_the_documents_are_valid() -> None:
    """Each body that a page shows is valid for its DAG."""
    conf = conf_in(DOCUMENT)
    assert parse_remote_request(request_of(conf, checked(conf))).ingest.index == "my-nlp-index"
    conf = conf_in(ROOT / "docs" / "how_to" / "replay_dead_letters.md")
    assert checked(conf, REPLAY.params)["field_map"] == {"_id": "$.id", "year": "$.published"}


def conf_in(page: Path) -> dict[str, Any]:
    """Return the conf of the one body that a page shows."""
    (body,) = re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    conf: dict[str, Any] = json.loads(body)["conf"]
    return conf


def test_the_audit_of_both_stacks_masks_what_the_document_says() -> None:
    """Compose file and documentation list the masked words of the local stack, in lower case."""
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    assert compose["x-airflow"]["environment"]["AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES"] == MASKED_WORDS
    assert f"`{MASKED_WORDS}`" in DOCUMENT.read_text()
    assert MASKED_WORDS.islower()
    for name in msgspec.structs.fields(Credential):
        if name.encode_name != "region":
            assert any(word in name.encode_name.lower() for word in MASKED_WORDS.split(",")), name.encode_name


def test_a_credential_is_refused_and_not_repeated() -> None:
    """The refusal says where keys belong; none of the credential's values is in it."""
    said = refused({**DOCUMENTED_SINGLE, "credential": KEYS})
    assert said.startswith("Invalid input for param credential: 'no credential is accepted")
    assert "aws_conn_id for S3, openai_conn_id for OpenAI" in said
    assert not [value for value in KEYS.values() if value in said]


def test_a_credential_that_is_no_object_is_refused_and_repeated() -> None:
    """JSON schema quotes a value of the wrong type, as documented."""
    assert "'sk-text'" in refused({"credential": "sk-text"})


def test_a_credential_inside_the_data_source_is_refused_and_not_repeated() -> None:
    """A credential inside data_source is refused and not quoted."""
    said = refused({"data_source": {**DOCUMENTED_SINGLE["data_source"], "credential": KEYS}})
    assert "'credential' is not one of ['type', 'source']" in said
    assert "one-secret" not in said


@pytest.mark.parametrize(
    "conf",
    [
        {"type": "local"},
        {"source": ["/etc/passwd"]},
        {"source": ["s3://bucket/key", "file:///etc/passwd"]},
        {"data_source": {"type": "local", "source": ["rows.jsonl"]}},
        {"data_source": {"type": "s3", "source": ["../rows.jsonl"]}},
    ],
)
def test_files_of_the_worker_are_refused(conf: dict[str, Any]) -> None:
    """Local files are refused; the error names what a DAG reads."""
    words = " ".join(refused(conf).replace("'", "").replace('"', "").split())
    assert "it does not read files of the workers machine" in words


@pytest.mark.parametrize("name", ["work_prefix", "dead_letters"])
def test_a_run_writes_to_s3_only(name: str) -> None:
    """A run writes only to S3; a local prefix is refused."""
    assert f"Invalid input for param {name}: '/tmp/x' does not match" in refused({name: "/tmp/x"})  # noqa: S108 - refused, not written


def test_a_request_of_ones_own_dag_is_held_to_the_same() -> None:
    """The operator refuses a credential when the DAG is parsed, and local files and prefixes when it runs."""
    with pytest.raises(ConfigError, match="aws_conn_id for S3, openai_conn_id for OpenAI") as error:
        OpenSearchBatchIngestionOperator(task_id="t", request={**DOCUMENTED_SINGLE, "credential": KEYS})
    assert "one-secret" not in str(error.value)
    with pytest.raises(ConfigError, match="would read the worker's own files"):
        parse_remote_request({**DOCUMENTED_SINGLE, "data_source": {"type": "local", "source": ["rows.jsonl"]}})
    with pytest.raises(ConfigError, match="is not an S3 location"):
        parse_remote_request({**DOCUMENTED_SINGLE, "dead_letters": "letters/"})


def test_a_replay_needs_a_queue() -> None:
    """Without one, or with a local one, no run starts."""
    with pytest.raises(ParamValidationError, match="no default value"):
        checked({}, REPLAY.params)
    with pytest.raises(ParamValidationError, match="does not match"):
        checked({"queue": "/letters/"}, REPLAY.params)
    assert checked({"queue": "s3://b/letters/"}, REPLAY.params)["field_map"] is None


@pytest.mark.parametrize("name", ["opensearch_conn_id", "aws_conn_id", "openai_conn_id"])
def test_a_file_is_no_connection(name: str) -> None:
    """The form refuses the text, and so does a task of another DAG that takes its ids from a conf."""
    file = "/any/file.yaml#p/sink/0"
    assert "does not match" in refused({name: file})
    if name != "openai_conn_id":
        with pytest.raises(ParamValidationError, match="does not match"):
            checked({"queue": "s3://b/letters/", name: file}, REPLAY.params)
    with pytest.raises(AirflowFailException, match="a request may not use connection"):
        OpenSearchBatchIngestionOperator(task_id="t", request=DOCUMENTED_SINGLE, **{name: file}).execute({})


SECRET = "AKIA-unseen"


@pytest.mark.parametrize(
    "conf",
    [
        {**DOCUMENTED_SINGLE, "credentials": {"secret_key": SECRET}},
        {**DOCUMENTED_SINGLE, "secret_key": SECRET},
        {**DOCUMENTED_SINGLE, "load": {"secret_key": SECRET}},
        {**DOCUMENTED_SINGLE, "data_source": {**DOCUMENTED_SINGLE["data_source"], "credential": {"key": SECRET}}},
        {**DOCUMENTED_SINGLE, "credential": {"secret_key": SECRET}},
    ],
)
def test_the_value_of_an_unknown_key_is_not_echoed(conf: dict[str, Any]) -> None:
    """Neither by Airflow's answer nor by the task's log."""
    try:
        parse_remote_request(request_of(conf, checked(conf)))
    except (ParamValidationError, ConfigError) as error:
        assert SECRET not in str(error)  # noqa: PT017 - either of two errors, at either of two steps
    else:
        pytest.fail("it was accepted")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, None),
        ({"host": "https://gateway.example/openai/v1"}, "https://gateway.example/openai/v1"),
        ({"host": "gateway.example/v1"}, "https://gateway.example/v1"),
        ({"host": "127.0.0.1/v1", "port": 9400, "schema": "http"}, "http://127.0.0.1:9400/v1"),
        ({"host": "http://127.0.0.1/v1", "port": 9400}, "http://127.0.0.1:9400/v1"),
    ],
)
def test_the_connection_names_the_apis_url(parts: dict[str, Any], expected: str | None) -> None:
    """A host may be a whole URL, or come with scheme and port beside it; none means OpenAI's own."""
    assert base_url(Connection(conn_id="c", conn_type="http", **parts)) == expected


def test_what_xcom_carries_does_not_grow_with_the_sources() -> None:
    """A thousand sources leave it below 2 KB; their own counts are in the report."""
    counts = IngestCounts(read=10, indexed=10, sources=[SourceCounts(f"s3://bucket/{n}") for n in range(1000)])
    report = IngestReport("index", "DONE", counts, f"s3://bucket/{'k' * 600}")
    carried = report_xcom(report, f"s3://bucket/{'w' * 600}")
    assert len(msgspec.json.encode(carried)) <= 2048
    assert carried["counts"]["indexed"] == 10
