"""DAGs of a Data Prepper file, one for each pipeline, without the file's secrets."""

from __future__ import annotations

import json
import runpy
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Connection
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.serialization.serialized_objects import DagSerialization

from opensearch_batch.dag_factory.pipelines import dags_of_folder, is_surely_pipeline_file
from opensearch_batch.hooks import file_connections
from opensearch_batch.hooks.connections import connection
from opensearch_batch.hooks.file_conn_ids import file_conn_id
from opensearch_batch.hooks.file_connections import connection_at
from opensearch_batch.operators.scan import NO_WORK

INCLUDE = Path(__file__).resolve().parents[2] / "include"
SAMPLE = INCLUDE / "samples" / "data_prepper" / "sagemaker_batch_job.yaml"
PASSWORD = "never-shown-anywhere"
NAME = "sagemaker-batch-job-pipeline"


def dag_of(folder: Path, text: str) -> DAG:
    """Return the one DAG of a file."""
    (folder / "books.yaml").write_text(text)
    found = dags_of_folder(folder)
    assert found.errors == []
    (dag,) = found.dags
    return dag


@pytest.fixture
def sample(tmp_path: Path) -> DAG:
    """The DAG of the documented sample."""
    return dag_of(tmp_path, SAMPLE.read_text())


def test_the_sample_is_a_dag_of_the_usual_stages(sample: DAG) -> None:
    """The DAG has the pipeline's name and the scan's schedule, and is paused."""
    assert sample.dag_id == NAME
    stages = ["batch_predict", "ingest", "ingest_rows", "poll", "prepare", "publish", "reconcile", "rows"]
    assert sorted(sample.task_dict) == stages
    assert sample.schedule == timedelta(minutes=6)
    assert (sample.is_paused_upon_creation, sample.catchup) == (True, False)
    assert {"opensearch", "data-prepper", "sagemaker"} <= sample.tags


def test_a_pipeline_without_a_schedule_scans_once(tmp_path: Path) -> None:
    """Without a schedule the DAG scans once, as Data Prepper does when it starts."""
    text = SAMPLE.read_text().replace("        scheduling:\n          interval: PT6M\n", "")
    schedule: Any = dag_of(tmp_path, text).schedule
    assert schedule == "@once"


def test_both_kinds_of_pipelines_share_a_folder_and_names_are_unique(tmp_path: Path) -> None:
    """Of two pipelines of one name neither is taken, because one would replace the other; the rest have their DAGs."""
    folder = tmp_path / "include" / "pipelines"
    folder.mkdir(parents=True)
    shutil.copy(INCLUDE / "pipelines" / "passages.yaml", folder)
    for name in ("a.yaml", "b.yml"):
        shutil.copy(SAMPLE, folder / name)
    found = dags_of_folder(folder)
    assert [dag.dag_id for dag in found.dags] == ["passages"]
    for error, one, other in zip(found.errors, ("a.yaml", "b.yml"), ("b.yml", "a.yaml"), strict=True):
        assert str(error).startswith(f"{folder / one}:1 {NAME}: {folder / other} already uses this DAG id")


def test_both_endings_of_yaml_are_read(tmp_path: Path) -> None:
    """Both endings of YAML are read; other files of the folder are not."""
    (tmp_path / "notes.txt").write_text("books")
    shutil.copy(SAMPLE, tmp_path / "books.yml")
    (dag,) = dags_of_folder(tmp_path).dags
    task: Any = dag.task_dict["prepare"]
    assert task.file == str(tmp_path / "books.yml")
    conn_id = file_conn_id(str(tmp_path / "books.yml"), NAME, "sink", 0)
    assert conn_id == f"{tmp_path / 'books.yml'}#{NAME}/sink/0"
    found: Any = connection(conn_id, "opensearch")
    assert found.extra_dejson["aws_conn_id"] == f"{tmp_path / 'books.yml'}#{NAME}/sink/0/aws"


@pytest.mark.parametrize("name", ["dag", "pipelines", "Path", "PIPELINES"])
def test_a_pipeline_may_be_called_as_a_variable_of_the_dag_file(tmp_path: Path, name: str) -> None:
    """Airflow finds a pipeline named like a variable of the DAG file, and the one after it."""
    for folder in ("dags", "include/pipelines"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(INCLUDE.parent / "dags" / "pipelines.py", tmp_path / "dags")
    for at, each in enumerate((name, NAME)):
        text = SAMPLE.read_text().replace(f"{NAME}:", f"{each}:")
        (tmp_path / "include" / "pipelines" / f"{at}.yaml").write_text(text)
    found = runpy.run_path(str(tmp_path / "dags" / "pipelines.py"))
    assert {value.dag_id for value in found.values() if isinstance(value, DAG)} == {name, NAME}


@pytest.mark.parametrize("name", ["work_prefix", "ingest", "batch_predict", "source"])
@pytest.mark.parametrize("version", ["version: '2'\n", ""])
def test_a_pipeline_may_be_called_as_a_key_of_ours(tmp_path: Path, name: str, version: str) -> None:
    """A pipeline may have the name of a key of our files: what is below it decides."""
    _, _, rest = SAMPLE.read_text().partition(f"{NAME}:")
    assert dag_of(tmp_path, f"{version}{name}:{rest}").dag_id == name


def test_a_file_of_ours_is_recognized_without_the_data_prepper_parser(tmp_path: Path) -> None:
    """The parser of Data Prepper files is not loaded for a file that is surely ours."""
    assert all(is_surely_pipeline_file(path) for path in (INCLUDE / "pipelines").glob("passages*.yaml"))
    assert not is_surely_pipeline_file(SAMPLE)
    text = (INCLUDE / "pipelines" / "passages.yaml").read_text()
    path = tmp_path / "pipelines" / "books.yaml"
    path.parent.mkdir()
    path.write_text(f"{text}\n# where is the sink: here\n")
    assert not is_surely_pipeline_file(path)
    assert [dag.dag_id for dag in dags_of_folder(path.parent).dags] == ["books"]


def test_a_mistake_names_file_and_line(tmp_path: Path) -> None:
    """An error names file, line and the nearest valid name."""
    (tmp_path / "books.yaml").write_text(SAMPLE.read_text().replace("index: test", "indx: test"))
    (error,) = dags_of_folder(tmp_path).errors
    assert "books.yaml:74" in str(error)
    assert "Did you mean 'index'?" in str(error)


def test_a_name_that_is_no_dag_id_affects_no_other_pipeline(tmp_path: Path) -> None:
    """A name that is no DAG id is refused, of a Data Prepper pipeline and of a file of ours."""
    shutil.copy(SAMPLE, tmp_path / "good.yaml")
    (tmp_path / "a.yaml").write_text(SAMPLE.read_text().replace(f"{NAME}:", "my pipeline:"))
    shutil.copy(INCLUDE / "pipelines" / "passages.yaml", tmp_path / "our passages.yaml")
    found = dags_of_folder(tmp_path)
    assert [dag.dag_id for dag in found.dags] == [NAME]
    one, other = map(str, found.errors)
    assert one.startswith(f"{tmp_path / 'a.yaml'}:6 my pipeline: the pipeline name is the DAG id, ")
    assert one.endswith("; write my-pipeline")
    assert other.startswith(
        f"{tmp_path / 'our passages.yaml'}:1 pipeline: the file name is the DAG id, and it is not valid: "
    )
    assert other.endswith("; write our-passages")


def test_an_unexpected_error_in_a_file_affects_no_other_file(tmp_path: Path) -> None:
    """An unexpected error, here of Airflow about a tag, is shown without its text, which quotes the file."""
    shutil.copy(SAMPLE, tmp_path / "good.yaml")
    tag = "s3cr3t" * 20
    text = SAMPLE.read_text().replace(f"{NAME}:", "tagged:")
    text = text.replace("extension:\n", f"extension:\n  opensearch_batch: {{tags: [{tag}]}}\n")
    (tmp_path / "a.yaml").write_text(text)
    found = dags_of_folder(tmp_path)
    assert [dag.dag_id for dag in found.dags] == [NAME]
    (error,) = map(str, found.errors)
    assert error.startswith(f"{tmp_path / 'a.yaml'}:1 cannot build a DAG from this file (ValueError in ")
    assert "s3cr3t" not in error


class OneXCom:
    """A task instance with one XCom."""

    def __init__(self, run: dict[str, Any] | None) -> None:
        self.run = run

    def xcom_pull(self, **_: Any) -> dict[str, Any] | None:
        """Return it."""
        return self.run


def test_a_run_whose_scan_failed_is_no_success(sample: DAG) -> None:
    """The stage reconcile fails after a failed scan, and is skipped after a scan that found nothing to do."""
    reconcile: Any = sample.task_dict["reconcile"]
    with pytest.raises(AirflowFailException, match="prepare failed"):
        reconcile.execute({"ti": OneXCom(None)})
    with pytest.raises(AirflowSkipException, match="the scan found nothing to do"):
        reconcile.execute({"ti": OneXCom(NO_WORK)})


def test_a_password_of_the_file_is_in_no_dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password of the file is read when it is used; the serialized DAG names only its location."""
    text = SAMPLE.read_text().replace(
        "        aws:\n          serverless: false\n          region: us-west-2\n",
        f"        username: worker\n        password: {PASSWORD}\n",
    )
    dag = dag_of(tmp_path, text)
    stored = json.dumps(DagSerialization.to_dict(dag))
    assert PASSWORD not in stored
    monkeypatch.setattr(file_connections, "stored_connection", no_connection)
    found: Any = connection_at(f"{tmp_path / 'books.yaml'}#{NAME}/sink/0")
    assert (found.login, found.password, found.port) == ("worker", PASSWORD, None)
    assert PASSWORD not in repr(found.extra)


def test_a_role_is_assumed_with_the_keys_of_the_airflow_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Region, role and external id come from the file, keys and endpoints from the connection."""
    role = "arn:aws:iam::012345678901:role/reads"
    text = SAMPLE.read_text().replace(
        "        region: name\n", f"        region: eu-west-1\n        sts_role_arn: {role}\n"
    )
    text = text.replace(f"{role}\n", f"{role}\n        sts_external_id: told\n").replace("account_ID", "012345678901")
    dag_of(tmp_path, text)
    base = Connection(
        conn_id="a", conn_type="aws", login="key", password="secret", extra='{"service_config": {"s3": 1}}'
    )
    monkeypatch.setattr(file_connections, "find_stored_connection", lambda *_: base)
    found: Any = connection_at(f"{tmp_path / 'books.yaml'}#{NAME}/source")
    assert (found.login, found.password) == ("key", "secret")
    assert found.extra_dejson == {
        "service_config": {"s3": 1},
        "region_name": "eu-west-1",
        "role_arn": role,
        "assume_role_kwargs": {"ExternalId": "told"},
        "bucket_owners": {"name": "012345678901"},
    }
    model: Any = connection_at(f"{tmp_path / 'books.yaml'}#{NAME}/model")
    assert model.extra_dejson["aws_conn_id"] == f"{tmp_path / 'books.yaml'}#{NAME}/model/aws"
    assert (model.host, model.extra_dejson["service"]) == (
        "search-AWStest-offlinebatch-123456789abcdef.us-west-2.es.amazonaws.com".lower(),
        "es",
    )


def no_connection(conn_id: str, conn_type: str) -> None:
    """Fail: no connection of Airflow may be requested."""
    raise AssertionError(f"{conn_type} {conn_id}")
