"""A Data Prepper file becomes a DAG for each of its pipelines; its secrets stay in it."""

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

from opensearch_batch.dag_factory.pipelines import is_surely_ours, pipelines
from opensearch_batch.hooks import file_connections
from opensearch_batch.hooks.connections import connection
from opensearch_batch.hooks.file_connections import connection_at
from opensearch_batch.operators.scan import NO_WORK

INCLUDE = Path(__file__).resolve().parents[2] / "include"
SAMPLE = INCLUDE / "samples" / "data_prepper" / "sagemaker_batch_job.yaml"
PASSWORD = "never-shown-anywhere"
NAME = "sagemaker-batch-job-pipeline"


def dag_of(folder: Path, text: str) -> DAG:
    """Return the one DAG of a file."""
    (folder / "books.yaml").write_text(text)
    found = pipelines(folder)
    assert found.refused == []
    (dag,) = found.dags
    return dag


@pytest.fixture
def sample(tmp_path: Path) -> DAG:
    """The DAG of the documents' sample."""
    return dag_of(tmp_path, SAMPLE.read_text())


def test_the_sample_is_a_dag_of_the_usual_stages(sample: DAG) -> None:
    """Its name is the pipeline's, its schedule the scan's; a person has to switch it on."""
    assert sample.dag_id == NAME
    stages = ["batch_predict", "ingest", "ingest_rows", "poll", "prepare", "publish", "reconcile", "rows"]
    assert sorted(sample.task_dict) == stages
    assert sample.schedule == timedelta(minutes=6)
    assert (sample.is_paused_upon_creation, sample.catchup) == (True, False)
    assert {"opensearch", "data-prepper", "sagemaker"} <= sample.tags


def test_a_pipeline_without_a_schedule_scans_once(tmp_path: Path) -> None:
    """As the original does when it starts."""
    text = SAMPLE.read_text().replace("        scheduling:\n          interval: PT6M\n", "")
    schedule: Any = dag_of(tmp_path, text).schedule
    assert schedule == "@once"


def test_pipelines_of_both_kinds_live_together_and_names_are_told_apart(tmp_path: Path) -> None:
    """A second pipeline of one name is refused, and takes no other one with it."""
    folder = tmp_path / "include" / "pipelines"
    for name in ("connectors", "indexes"):
        shutil.copytree(INCLUDE / name, tmp_path / "include" / name)
    folder.mkdir()
    shutil.copy(INCLUDE / "pipelines" / "passages.yaml", folder)
    for name in ("a.yaml", "b.yml"):
        shutil.copy(SAMPLE, folder / name)
    found = pipelines(folder)
    assert [dag.dag_id for dag in found.dags] == [NAME, "passages"]
    (error,) = found.refused
    assert str(error).startswith(f"{folder / 'b.yml'}:1 {NAME}: {folder / 'a.yaml'} has a pipeline of the same name")


def test_either_ending_of_yaml_is_read_and_points_to_its_places(tmp_path: Path) -> None:
    """What else lies in the folder is none of them."""
    (tmp_path / "notes.txt").write_text("books")
    shutil.copy(SAMPLE, tmp_path / "books.yml")
    (dag,) = pipelines(tmp_path).dags
    task: Any = dag.task_dict["prepare"]
    assert task.file == str(tmp_path / "books.yml")
    found: Any = connection(f"{tmp_path / 'books.yml'}#{NAME}/sink/0", "opensearch")
    assert found.extra_dejson["aws_conn_id"] == f"{tmp_path / 'books.yml'}#{NAME}/sink/0/aws"


@pytest.mark.parametrize("name", ["dag", "pipelines", "Path", "PIPELINES"])
def test_a_pipeline_may_be_called_as_a_variable_of_the_dag_file(tmp_path: Path, name: str) -> None:
    """Airflow finds it, and the one that comes after it."""
    for folder in ("dags", "include/pipelines"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(INCLUDE.parent / "dags" / "pipelines.py", tmp_path / "dags")
    for at, each in enumerate((name, NAME)):
        text = SAMPLE.read_text().replace(f"{NAME}:", f"{each}:")
        (tmp_path / "include" / "pipelines" / f"{at}.yaml").write_text(text)
    found = runpy.run_path(str(tmp_path / "dags" / "pipelines.py"))
    assert {value.dag_id for value in found.values() if isinstance(value, DAG)} == {name, NAME}


@pytest.mark.parametrize("name", ["work", "ingest", "batch_predict", "source"])
@pytest.mark.parametrize("version", ["version: '2'\n", ""])
def test_a_pipeline_may_be_called_as_a_key_of_ours(tmp_path: Path, name: str, version: str) -> None:
    """What stands below it decides."""
    _, _, rest = SAMPLE.read_text().partition(f"{NAME}:")
    assert dag_of(tmp_path, f"{version}{name}:{rest}").dag_id == name


def test_a_file_of_ours_is_told_without_reading_it_as_data_prepper_s(tmp_path: Path) -> None:
    """Airflow's parser would load what reads the others every few seconds; one that may be theirs is looked at."""
    assert all(is_surely_ours(path) for path in (INCLUDE / "pipelines").glob("passages*.yaml"))
    assert not is_surely_ours(SAMPLE)
    text = (INCLUDE / "pipelines" / "passages.yaml").read_text()
    for name in ("connectors", "indexes"):
        shutil.copytree(INCLUDE / name, tmp_path / name)
    path = tmp_path / "pipelines" / "books.yaml"
    path.parent.mkdir()
    path.write_text(f"{text}\n# where is the sink: here\n")
    assert not is_surely_ours(path)
    assert [dag.dag_id for dag in pipelines(path.parent).dags] == ["books"]


def test_a_mistake_names_file_and_line(tmp_path: Path) -> None:
    """And the nearest right name."""
    (tmp_path / "books.yaml").write_text(SAMPLE.read_text().replace("index: test", "indx: test"))
    (error,) = pipelines(tmp_path).refused
    assert "books.yaml:74" in str(error)
    assert "Did you mean 'index'?" in str(error)


def test_names_that_are_no_dag_ids_take_no_other_pipeline_with_them(tmp_path: Path) -> None:
    """Neither a pipeline's of Data Prepper's, nor a file's of ours."""
    shutil.copy(SAMPLE, tmp_path / "good.yaml")
    (tmp_path / "a.yaml").write_text(SAMPLE.read_text().replace(f"{NAME}:", "my pipeline:"))
    shutil.copy(INCLUDE / "pipelines" / "passages.yaml", tmp_path / "our passages.yaml")
    found = pipelines(tmp_path)
    assert [dag.dag_id for dag in found.dags] == [NAME]
    one, other = map(str, found.refused)
    assert one.startswith(f"{tmp_path / 'a.yaml'}:6 my pipeline: the pipeline name is the DAG id, ")
    assert one.endswith("; write my-pipeline")
    assert other.startswith(
        f"{tmp_path / 'our passages.yaml'}:1 pipeline: the file name is the DAG id, and it is not valid: "
    )
    assert other.endswith("; write our-passages")


def test_whatever_is_wrong_with_a_file_takes_no_other_one_with_it(tmp_path: Path) -> None:
    """Airflow refuses such a tag only when the DAG is made; its text, which has the tag, is not passed on."""
    shutil.copy(SAMPLE, tmp_path / "good.yaml")
    tag = "s3cr3t" * 20
    text = SAMPLE.read_text().replace(f"{NAME}:", "tagged:")
    text = text.replace("extension:\n", f"extension:\n  opensearch_batch: {{tags: [{tag}]}}\n")
    (tmp_path / "a.yaml").write_text(text)
    found = pipelines(tmp_path)
    assert [dag.dag_id for dag in found.dags] == [NAME]
    (error,) = map(str, found.refused)
    assert error.startswith(f"{tmp_path / 'a.yaml'}:1 cannot build a DAG of this file (ValueError in ")
    assert "s3cr3t" not in error


class SpecStruct:
    """A task instance of which one XCom is known."""

    def __init__(self, run: dict[str, Any] | None) -> None:
        self.run = run

    def xcom_pull(self, **_: Any) -> dict[str, Any] | None:
        """Return it."""
        return self.run


def test_a_run_whose_scan_failed_is_no_success(sample: DAG) -> None:
    """The last stages run whatever became of the first; where it found nothing they are skipped."""
    reconcile: Any = sample.task_dict["reconcile"]
    with pytest.raises(AirflowFailException, match="prepare failed"):
        reconcile.execute({"ti": SpecStruct(None)})
    with pytest.raises(AirflowSkipException):
        reconcile.execute({"ti": SpecStruct(NO_WORK)})


def test_a_password_of_the_file_is_in_no_dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read where it is used; what Airflow stores names the place alone."""
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
    """Region, role and external id are the file's, keys and endpoints the connection's; a bucket has its owner."""
    role = "arn:aws:iam::012345678901:role/reads"
    text = SAMPLE.read_text().replace(
        "        region: name\n", f"        region: eu-west-1\n        sts_role_arn: {role}\n"
    )
    text = text.replace(f"{role}\n", f"{role}\n        sts_external_id: told\n").replace("account_ID", "012345678901")
    dag_of(tmp_path, text)
    base = Connection(
        conn_id="a", conn_type="aws", login="key", password="secret", extra='{"service_config": {"s3": 1}}'
    )
    monkeypatch.setattr(file_connections, "find_stored_connection", lambda conn_id: base)  # noqa: ARG005 - the one there is
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
    """Fail: nothing of Airflow's is to be asked for."""
    raise AssertionError(f"{conn_type} {conn_id}")
