"""`dags` builds the same DAGs from a folder and from S3, and each process finds the files again where they are."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.file import might_contain_dag_via_default_heuristic

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.dag_factory import dags, raise_errors, request_dags
from opensearch_batch.hooks.connections import connection
from opensearch_batch.hooks.file_conn_ids import file_conn_id
from opensearch_batch.hooks.pipeline_settings import settings_of
from tests.core.aws import aws

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "include"
DATA_PREPPER = "sagemaker-batch-job-pipeline"
OWN_BODY = {"mappings": {"properties": {"embedding": {"type": "knn_vector", "dimension": 384}}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two valid files, of which one is Data Prepper's, and one with a mistake; an own index body."""
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    spec = yaml.safe_load((SAMPLES / "pipelines" / "passages.yaml").read_text())
    (pipelines / "books.yaml").write_text(
        yaml.safe_dump({**spec, "ingest": {**spec["ingest"], "index_body": "own"}, "tests": []})
    )
    shutil.copy(SAMPLES / "samples" / "data_prepper" / "sagemaker_batch_job.yaml", pipelines / "osi.yml")
    (pipelines / "torn.yaml").write_text("source: {")
    (tmp_path / "indexes").mkdir()
    (tmp_path / "indexes" / "own.json").write_text(json.dumps(OWN_BODY))
    return tmp_path


@pytest.fixture
def uri(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same files in S3, which `aws_default` reads, beside objects that are no such files."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    with aws("s3") as client:
        client.create_bucket(Bucket=bucket)
        for path in folder.rglob("*.*"):
            client.put_object(Bucket=bucket, Key=f"team/{path.relative_to(folder)}", Body=path.read_bytes())
        for key in ("team/notes.yaml", "team/pipelines/old/books.yaml", "team/pipelines/../../up.yaml"):
            client.put_object(Bucket=bucket, Key=key, Body=b"not read")
        extra = {"endpoint_url": client.meta.endpoint_url, "region_name": "us-east-1"}
        stored = {"conn_type": "aws", "login": "tests", "password": "tests", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(stored))
        yield f"s3://{bucket}/team"


def encoded(dag: DAG) -> Any:
    """Return what Airflow stores of a DAG."""
    return DagSerialization.to_dict(dag)["dag"]


def test_a_folder_and_a_prefix_give_the_same_dags(folder: Path, uri: str) -> None:
    """With and without a slash at the end; a mistake in one file affects no other; no copy is left."""
    before = set(Path(tempfile.gettempdir()).glob("opensearch-batch-*"))
    local = dags(folder)
    for location in (uri, f"{uri}/"):
        remote = dags(location)
        assert sorted(remote) == sorted(local) == ["books", DATA_PREPPER]
        assert encoded(remote["books"]) == encoded(local["books"])
    prepare: Any = local["books"].task_dict["prepare"]
    assert prepare.index_body == OWN_BODY
    assert prepare.connector["name"]
    assert set(Path(tempfile.gettempdir()).glob("opensearch-batch-*")) == before


@pytest.mark.parametrize("where", ["folder", "uri"])
def test_a_mistake_names_the_file_where_the_user_has_it(where: str, request: pytest.FixtureRequest) -> None:
    """Never the copy of it; one error has all mistakes."""
    location = str(request.getfixturevalue(where))
    with pytest.raises(ConfigError, match=r"torn\.yaml:2 not valid YAML") as error:
        raise_errors(location)
    assert str(error.value).startswith(f"{location}/pipelines/torn.yaml:2 ")


def test_tasks_find_the_files_of_a_relative_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may run in another working directory than the dag-processor."""
    monkeypatch.chdir(folder.parent)
    prepare: Any = dags(folder.name)[DATA_PREPPER].task_dict["prepare"]
    assert prepare.file == str(folder / "pipelines" / "osi.yml")


def test_mistakes_are_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A DAG file that calls only `dags` has no import error."""
    dags(folder)
    assert [f"{folder}/pipelines/torn.yaml:2" in record.getMessage() for record in caplog.records] == [True]


def test_a_folder_without_pipelines_is_refused(tmp_path: Path, uri: str) -> None:
    """It would look like a folder whose files are all valid."""
    for location in (str(tmp_path / "none"), f"{uri}/pipelines/old"):
        with pytest.raises(
            ConfigError, match="no folder pipelines/; name the folder that contains pipelines/"
        ) as error:
            dags(location)
        assert str(error.value).startswith(f"{location}: ")


def test_tasks_triggers_and_pages_read_a_data_prepper_file_in_s3_again(uri: str) -> None:
    """Its tasks, the ids of its connections and the pages' settings name the object, so no disk is shared."""
    location = f"{uri}/pipelines/osi.yml"
    prepare: Any = dags(uri)[DATA_PREPPER].task_dict["prepare"]
    assert prepare.file == location
    assert prepare._compiled().pipeline.name == DATA_PREPPER  # noqa: SLF001 - what each stage calls first
    found: Any = connection(file_conn_id(location, DATA_PREPPER, "sink", 0), "opensearch")
    assert found.extra_dejson["aws_conn_id"] == f"{location}#{DATA_PREPPER}/sink/0/aws"
    stored = {"task_type": "OpenSearchScanPrepareOperator", "file": location, "pipeline": DATA_PREPPER}
    settings = settings_of(DATA_PREPPER, [stored])
    assert settings is not None
    assert (settings.source, settings.aws_conn_id) == ("osi.yml", f"{location}#{DATA_PREPPER}/source")
    with pytest.raises(ConfigError, match=r"gone\.yml: no such object"):
        settings_of(DATA_PREPPER, [{**stored, "file": f"{uri}/pipelines/gone.yml"}])


def test_the_dags_without_a_pipeline_file_are_built_anew_each_time() -> None:
    """Two DAG files may ask for them."""
    one, other = request_dags(), request_dags()
    assert set(one) == {"batch_ingestion", "replay"}
    assert all(one[name] is not other[name] for name in one)


@pytest.mark.parametrize("path", sorted((ROOT / "dags").glob("*.py")), ids=lambda path: str(path.name))
def test_airflow_takes_the_dag_files_for_such(path: Path) -> None:
    """It parses only files that contain two words."""
    assert might_contain_dag_via_default_heuristic(str(path))
