"""How Airflow finds the pages: the plugin, a proxy's prefix, and what a stored DAG tells of its pipeline."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse
from airflow.serialization.serialized_objects import DagSerialization

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.dag_factory.pipelines import dags_of_folder
from opensearch_batch.hooks.pipeline_settings import PipelineSettings, settings_of
from tests.pages.site import DAG_ID, Site, token_of

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "include" / "samples" / "data_prepper" / "sagemaker_batch_job.yaml"
# What scheduler, workers, triggerer and DAG processor load of this project: by plugin managers, DAG files and triggers.
_PLUGIN = """
import importlib, json, pkgutil, runpy, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from airflow import plugins_manager
from airflow.sdk import plugins_manager as of_tasks
plugins, errors = plugins_manager._get_plugins()
# An editable install has its entry points twice: beside the sources, too.
assert all("already registered" in error for error in errors.values()), errors
plugins_manager.get_timetables_plugins()
plugins_manager.get_operator_extra_links()
plugins_manager.get_priority_weight_strategy_plugins()
of_tasks.integrate_macros_plugins()
for path in sorted((Path(sys.argv[1]) / "dags").glob("*.py")):
    runpy.run_path(str(path))
for name in ("operators", "sensors", "triggers", "notifications", "dag_factory"):
    package = importlib.import_module(f"opensearch_batch.{name}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
(plugin,) = [each for each in plugins if each.name == "opensearch_batch"]
views = plugin.external_views
before = [name for name in sys.modules if name.startswith(("opensearch_batch.ui", "fastapi"))]
apps = [(app["url_prefix"], type(app["app"]).__name__) for app in plugin.fastapi_apps]
print("FOUND" + json.dumps([views, before, apps]))
"""


def in_new_process(**environment: str) -> Any:
    """Load the plugin as Airflow does, by its entry point."""
    settings = {"AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **settings, **environment}
    command = [sys.executable, "-c", _PLUGIN, str(ROOT)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)  # noqa: S603 - this file's own
    return json.loads(done.stdout.partition("FOUND")[2])


def test_the_plugin_registers_four_views_and_builds_the_pages_only_where_they_are_served() -> None:
    """Scheduler, workers, triggerer and DAG processor load the plugin, too, and nothing of the pages and the API."""
    views, before, apps = in_new_process(AIRFLOW__API__BASE_URL="https://airflow.example/team/")
    assert before == []
    assert ["/opensearch-batch", "FastAPI"] in apps
    assert len({ExternalViewResponse.model_validate(view).url_route for view in views}) == len(views)
    assert {view["destination"]: view["href"] for view in views} == {
        "nav": "/team/opensearch-batch/",
        "dag": "/team/opensearch-batch/pipelines/{DAG_ID}",
        "dag_run": "/team/opensearch-batch/pipelines/{DAG_ID}/runs/{RUN_ID}",
        "task_instance": "/team/opensearch-batch/pipelines/{DAG_ID}/runs/{RUN_ID}",
    }


def test_all_addresses_have_the_prefix_of_a_proxy(site: Site, run_path: str) -> None:
    """Airflow takes it from its `base_url`."""
    site.root.root_path = "/team"
    client = site.client(None)
    headers = {"Authorization": f"Bearer {token_of('admin')}"}
    pages = "/", "/jobs", f"/pipelines/{DAG_ID}", run_path, f"{run_path}/dead-letters", f"/pipelines/{DAG_ID}/jobs"
    for path in pages:
        page = client.get(f"/team/opensearch-batch{path}", headers=headers).text
        assert DAG_ID in page or path == "/jobs"
        links = re.findall(r'(?:href|src|action|hx-get|hx-sse:connect)="([^"#][^"]*)"', page)
        assert len(links) > 10
        own = "/team/opensearch-batch/", f"/team/dags/{DAG_ID}"
        assert [link for link in links if not link.startswith(own)] == []


def test_a_stored_dag_tells_the_settings_of_its_pipeline(site: Site) -> None:
    """Airflow's database has them, as the DAG processor wrote them."""
    (found,) = site.pages.state.services.airflow.pipelines("passages_daily")
    assert found.settings == PipelineSettings(
        dag_id="passages_daily",
        work_prefix="s3://opensearch-batch",
        service="sagemaker",
        index="passages-daily",
        source="s3://documents/daily/dt={{ logical_date.in_timezone('UTC').strftime('%Y-%m-%d') }}/",
    )
    assert (found.schedule, found.is_paused, found.next_run_at) == ("0 2 * * *", True, None)


def test_a_data_prepper_pipeline_names_its_file(tmp_path: Path) -> None:
    """Airflow stores the location of the file, which is read where it is; without it, the page says what to do."""
    shutil.copy(SAMPLE, tmp_path / "books.yaml")
    (dag,) = dags_of_folder(tmp_path).dags
    tasks = [task["__var"] for task in DagSerialization.to_dict(dag)["dag"]["tasks"]]
    found = settings_of(dag.dag_id, tasks)
    assert found is not None
    assert (found.is_scan, found.service) == (True, "sagemaker")
    assert found.aws_conn_id == f"{tmp_path / 'books.yaml'}#{dag.dag_id}/source"
    assert found.layout.pipeline == dag.dag_id
    (tmp_path / "books.yaml").unlink()
    with pytest.raises(ConfigError, match="the api-server cannot read this file; mount it there as on the workers"):
        settings_of(dag.dag_id, tasks)


def test_other_dags_are_no_pipelines() -> None:
    """A task of another kind does not count, whatever its fields are called."""
    fields = {"work_prefix": "s3://b", "service": "s", "index": "i"}
    assert settings_of("d", [{"task_type": "OpenSearchBatchIngestOperator", **fields}]) is None
    assert settings_of("d", [{"task_type": "PrepareFloor"}]) is None
    assert settings_of("d", [{"task_type": "MyPrepareOperator", **fields}]) is not None
