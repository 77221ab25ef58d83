"""The lineage of a run, as Airflow's OpenLineage provider asks for it and writes it to a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter
from airflow.sdk import BaseOperator
from airflow.utils.state import TaskInstanceState

from opensearch_batch.core.runs.index_objects import IndexObjects, IndexSource
from opensearch_batch.core.types.datasets import DatasetName, index_dataset, objects_dataset
from opensearch_batch.operators.ingest import OpenSearchBatchIngestOperator
from tests.operators.whole_run import NAME, Search, pipeline

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
INDEX = {"namespace": "opensearch://search:9200", "name": NAME}
FOLDER = {"namespace": "s3://docs", "name": NAME}


class Events:
    """The file to which the provider writes events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter = OpenLineageAdapter()
        self.manager = ExtractorManager()  # type: ignore[no-untyped-call] # the provider's own

    def emit(self, task: BaseOperator, state: TaskInstanceState) -> dict[str, list[dict[str, str]]]:
        """Emit the event of a task that has ended; return its datasets as the file has them."""
        run = SimpleNamespace(run_id="manual__1")
        found = self.manager.extract_metadata(run, task, state, SimpleNamespace())
        self.adapter.complete_task(
            run_id=str(uuid.uuid4()),
            job_name=f"{NAME}.{task.task_id}",
            end_time=datetime.now(UTC).isoformat(),
            task=found,
            nominal_start_time=None,
            nominal_end_time=None,
            owners=None,
            tags=None,
            job_description=None,
        )
        event = json.loads(self.path.read_text().splitlines()[-1])
        assert event["job"]["name"] == f"{NAME}.{task.task_id}"
        return {
            side: [{name: each[name] for name in ("namespace", "name")} for each in event[side]]
            for side in ("inputs", "outputs")
        }


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Events:
    """The provider, configured with its file transport."""
    path = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(path), "append": True}
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
    return Events(path)


@pytest.mark.parametrize("state", [TaskInstanceState.SUCCESS, TaskInstanceState.FAILED])
def test_three_stages_report_source_and_index(
    events: Events, monkeypatch: pytest.MonkeyPatch, state: TaskInstanceState
) -> None:
    """A failed task reports what it read and wrote, too; the other stages report nothing."""
    books = pipeline(monkeypatch)
    books.write("a.jsonl", [b'{"id": 1, "text": "t"}'])
    books.run("manual__1")
    for name in ("ingest", "reconcile", "publish"):
        assert events.emit(books.ended[name], state) == {"inputs": [FOLDER], "outputs": [INDEX]}
    for name in ("prepare", "batch_predict"):
        assert events.emit(books.ended[name], state) == {"inputs": [], "outputs": []}


def test_a_task_that_failed_at_once_reports_nothing(events: Events) -> None:
    """Its datasets are not known yet."""
    task = OpenSearchBatchIngestOperator(
        task_id="ingest", shards={}, work_prefix="s3://work", service="openai", index=NAME, field_map={}
    )
    assert events.emit(task, TaskInstanceState.FAILED) == {"inputs": [], "outputs": []}


def test_a_run_that_publishes_nothing_reports_no_publication(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run finds nothing to do, so `ingest` does not run, and `publish` is skipped."""
    books = pipeline(monkeypatch)
    books.write("a.jsonl", [b'{"id": 1, "text": "t"}'])
    books.run("manual__1")
    books.write("b.jsonl", [b'{"id": 1, "text": "t"}'])
    books.run("manual__2")
    assert books.ended.keys() == {"prepare", "reconcile", "publish"}
    assert events.emit(books.ended["publish"], TaskInstanceState.SKIPPED) == {"inputs": [], "outputs": []}


def test_operators_load_where_the_provider_is_not_installed() -> None:
    """Only a method that the provider calls imports it."""
    code = """
import importlib, sys
sys.modules["openlineage"] = sys.modules["airflow.providers.openlineage.extractors"] = None
for name in ("ingest", "reconcile", "publish"):
    importlib.import_module(f"opensearch_batch.operators.{name}")
"""
    env = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("s3://docs/books/", "s3://docs", "books"),
        ("s3://docs/books/a.jsonl", "s3://docs", "books/a.jsonl"),
        ("s3://docs", "s3://docs", "/"),
        ("s3://docs/", "s3://docs", "/"),
        ("s3://docs/books/dt=*/part-?.jsonl", "s3://docs", "books"),
        ("s3://docs/*.jsonl", "s3://docs", "/"),
        ("s3://out/rows/%{yyyy}/${/kind}/", "s3://out", "rows"),
    ],
)
def test_objects_have_the_name_of_their_prefix(uri: str, namespace: str, name: str) -> None:
    """As OpenLineage names objects of S3: without a slash at the end."""
    assert objects_dataset(uri) == DatasetName(namespace, name)


@pytest.mark.parametrize("url", ["https://search:9200", "https://search:9200/behind/a/proxy"])
def test_an_index_has_the_address_of_its_cluster(url: str) -> None:
    """Whatever the scheme and the path of the URL."""
    assert index_dataset(url, "books") == DatasetName("opensearch://search:9200", "books")


def test_an_index_that_is_read_has_the_address_of_its_cluster() -> None:
    """Not the id of the connection, which is a name in one Airflow only."""
    with IndexObjects(Search(), IndexSource(NAME), f"opensearch://conn_id/{NAME}/") as found:
        assert found.dataset == DatasetName("opensearch://search:9200", NAME)
