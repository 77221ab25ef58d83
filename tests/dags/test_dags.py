"""Airflow can parse the DAGs: they import, serialize, and load no heavy library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ["boto3", "duckdb", "jsonpath_ng", "numpy", "onnxruntime", "openai", "opensearchpy", "zstandard"]
READ = """
import json, sys
sys.path.insert(0, "dags")
import airflow.sdk
before = set(sys.modules)
import {module}
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
dags = [value for value in vars({module}).values() if isinstance(value, DAG)]
heavy = [name for name in {heavy} if name in set(sys.modules) - before]
encoded = {{dag.dag_id: DagSerialization.to_dict(dag) for dag in dags}}
again = [DagSerialization.from_dict(value).dag_id for value in encoded.values()]
tasks = {{dag.dag_id: {{task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}} for dag in dags}}
endless = [task.task_id for dag in dags for task in dag.tasks if task.execution_timeout is None]
print(json.dumps({{"endless": endless, "heavy": heavy, "again": again, "tasks": tasks}}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary Airflow home."""
    return tmp_path_factory.mktemp("airflow")


@pytest.mark.parametrize(("module", "dag_id"), [("pipelines", "passages"), ("example_by_hand", "example_by_hand")])
def test_a_dag_file_is_light_and_its_stages_are_in_order(home: Path, module: str, dag_id: str) -> None:
    """Parsing loads no heavy library; the DAG serializes; its stages are the documented ones."""
    found = read(home, module)
    assert found["heavy"] == []
    assert dag_id in found["again"]
    spread = {
        "split": ["compare", "read"],
        "read": ["compare"],
        "compare": ["reserve", "stage"],
        "stage": ["reserve"],
        "reserve": ["batch_predict"],
    }
    large = dag_id == "passages"
    assert found["tasks"][dag_id] == {
        "prepare": ["batch_predict", "ingest", *(["split"] if large else [])],
        **(spread if large else {}),
        "batch_predict": ["poll"],
        "poll": ["ingest"],
        "ingest": ["repair"],
        "repair": ["ingest_repaired"],
        "ingest_repaired": ["reconcile"],
        "reconcile": ["publish"],
        "publish": [],
    }


@pytest.mark.parametrize(
    "module",
    ["pipelines", *(pytest.param(name, marks=pytest.mark.slow) for name in ("example_by_hand", "request_dags"))],
)
def test_each_task_has_an_end(home: Path, module: str) -> None:
    """A task that hangs is stopped at its `execution_timeout`."""
    assert read(home, module)["endless"] == []


def test_the_operators_load_no_data_prepper_module(home: Path) -> None:
    """Modules for Data Prepper files are loaded only if there is such a file."""
    assert read(home, "example_by_hand", heavy=["opensearch_batch.core.data_prepper"])["heavy"] == []


def test_the_dags_without_a_pipeline_file_are_light(home: Path) -> None:
    """Parsing loads no heavy library; the DAGs serialize; the one task of each has its name."""
    found = read(home, "request_dags")
    assert found["heavy"] == []
    assert found["tasks"] == {name: {name: []} for name in ("batch_ingestion", "replay")}
    assert sorted(found["again"]) == sorted(found["tasks"])


def test_a_file_with_a_mistake_affects_no_other_file(home: Path, tmp_path: Path) -> None:
    """Valid files have their DAGs, and an import error names each mistake with file and line."""
    for folder in ("dags", "include"):
        # A demo may have left a file of its own.
        ignored = shutil.ignore_patterns("local_stack", "__pycache__", "sagemaker_batch_job_pipeline.yaml")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    pipelines = tmp_path / "include" / "pipelines"
    whole = (pipelines / "passages.yaml").read_text()
    (pipelines / "mistaken.yaml").write_text(whole.replace("uri:", "url:"))
    (pipelines / "scrambled.yaml").write_bytes(b"\xff\xfe")
    (pipelines / "torn.yaml").write_text("source: {")
    found = read(home, "pipelines", tmp_path)
    known = [path.stem for path in sorted((ROOT / "include" / "pipelines").glob("passages*.yaml"))]
    assert sorted(found["again"]) == sorted(known)
    with pytest.raises(AssertionError, match=r"mistaken\.yaml:3 source\.url") as refused:
        read(home, "refused_pipelines", tmp_path)
    said = str(refused.value)
    assert f"{pipelines}/mistaken.yaml:3 source.url: unknown key. Did you mean 'uri'?" in said
    assert f"{pipelines}/scrambled.yaml:1 cannot be read" in said
    assert f"{pipelines}/torn.yaml:2 not valid YAML" in said
    assert not [name for name in known if f"/{name}.yaml" in said]


def test_without_a_mistake_nothing_is_refused(home: Path) -> None:
    """The file that shows the errors contains no DAG: else two files would contain the same ones."""
    assert read(home, "refused_pipelines")["tasks"] == {}


def read(home: Path, module: str, root: Path = ROOT, *, heavy: Sequence[str] = HEAVY) -> dict[str, Any]:
    """Parse a DAG file as Airflow does, in its own process."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
    }
    code = READ.format(module=module, heavy=list(heavy))
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
