"""A service that another distribution registers takes a pipeline to the index; the package is as it is."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.check import check_pipeline
from opensearch_batch.dag_factory.pipelines import pipeline_dag
from opensearch_batch.hooks.ai_services import outputs_store
from opensearch_batch.services import registry
from opensearch_batch.services.registry import adapter_of, row_errors, service_of
from tests.core.aws import aws
from tests.fifth_service import ACME, KEY
from tests.serving import Exchange, Server
from tests.stored import present

CONNECTOR = {
    "name": "acme",
    "version": 1,
    "protocol": "http",
    "parameters": {"model": "<model>"},
    "credential": {"acme_key": "<key>"},
    "actions": [{"action_type": "batch_predict", "method": "POST", "url": "https://acme/jobs"}],
}
INDEX_BODY = {
    "settings": {"index.knn": True},
    "mappings": {"properties": {"text": {"type": "text"}, "vector": {"type": "knn_vector", "dimension": 2}}},
}
PIPELINE = """
source: {{uri: "s3://{bucket}/in/"}}
id: $.id
work_prefix: s3://{bucket}/work
max_dead_letters: 50%
batch_predict:
  {{service: acme, connector: acme, values: {{model: m}}, input: $.text, dimension: 2, poll_every_s: 0.1,
   repair_at_most: 50%}}
ingest: {{index: books, index_body: books, field_map: {{text: $.text, vector: prediction}}}}
connections: {{opensearch: os_{name}, aws: aws_{name}}}
tests:
  - name: a text gets its vector
    records: [{{id: "1", text: one}}, {{id: "2"}}]
    predictions: [[3.0, 1.0], [0.0, 0.0]]
    documents: [{{_id: "1", text: one, vector: [3.0, 1.0]}}]
    dead_letters: ["nothing at $.text"]
"""


class Node(Server):
    """A node with one index and ML Commons, which calls Acme by its connector."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.index: dict[str, Any] | None = None
        self.connector: dict[str, Any] = {}
        self.tasks: dict[str, str] = {}
        super().__init__(self._handle)

    def _handle(self, request: Exchange) -> None:
        lines = [json.loads(line) for line in request.body().splitlines()]
        found = self.answer(request.command, request.path.partition("?")[0], lines)
        request.reply(404 if found is None else 200, {"error": {"reason": "not there"}} if found is None else found)

    def answer(self, method: str, path: str, lines: list[Any]) -> dict[str, Any] | None:
        """Answer a request; None for what is not there."""
        if path.startswith("/_plugins/_ml/"):
            return self._ml(path.removeprefix("/_plugins/_ml/"), lines)
        if path.endswith("/_bulk"):
            return {"errors": False, "items": [self._item(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]}
        if method == "PUT":
            (self.index,) = lines
            return {"acknowledged": True}
        if path != "/books":
            return {}
        return self.index and {"books": {**self.index, "settings": {"index": {"uuid": "u"}}}}

    def _item(self, head: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
        self.documents[head["index"]["_id"]] = source
        return {"index": {"status": 201}}

    def _ml(self, path: str, lines: list[Any]) -> dict[str, Any] | None:
        if path == "connectors/_create":
            (self.connector,) = lines
            return {"connector_id": "c"}
        if path == "models/_register":
            return {"model_id": "m"}
        if path == "models/m":
            return {"connector": {"parameters": self.connector["parameters"]}}
        if path == "models/m/_batch_predict":
            job = ACME.submit(self.connector["credential"]["acme_key"], lines[0]["parameters"])
            self.tasks[f"task-{job['id']}"] = job["id"]
            return {"task_id": f"task-{job['id']}", "remote_job": job}
        if task := re.fullmatch(r"tasks/(task-[^/]+)", path):
            return {"state": "RUNNING", "remote_job": ACME.describe(self.tasks[task[1]])}
        return {"hits": {"hits": []}}


class Ti(SimpleNamespace):
    """A task instance; all of a run share their XComs."""

    def xcom_push(self, *, key: str, value: Any) -> None:
        """Keep a value."""
        self.xcoms[self.task_id, key, self.map_index] = value

    def xcom_pull(self, *, task_ids: str, key: str = "return_value", map_indexes: int | None = None) -> Any:
        """Return a value, of an unmapped task by default."""
        index = -1 if map_indexes is None else map_indexes
        return self.xcoms.get((task_ids, key, index))


class DagRun:
    """One run of a pipeline's DAG: Airflow's templates and deferrals, without its scheduler."""

    def __init__(self, path: Path, run_id: str) -> None:
        self._dag = pipeline_dag(path)
        self._run = SimpleNamespace(dag_id=path.stem, run_id=run_id, logical_date=None, partition_key=None, conf={})
        self._xcoms: dict[tuple[str, str, int], Any] = {}

    def run(self) -> dict[str, Any] | None:
        """Run all stages; return what reconcile returned, None if it was skipped."""
        groups = self._task("prepare")
        for at, group in enumerate(groups):
            for task_id in ("batch_predict", "poll", "ingest") if group["records"] else ("ingest",):
                self._task(task_id, at, group)
        # Without groups, Airflow skips repair, too.
        for at, group in enumerate((groups and self._task("repair")) or ()):
            self._task("ingest_repaired", at, group)
        found: dict[str, Any] | None = self._task("reconcile")
        return found

    def _task(self, task_id: str, map_index: int = -1, group: Any = None) -> Any:
        found: Any = self._dag.get_task(task_id)
        task = found.unmap({"shards": group}) if found.is_mapped else found.prepare_for_execution()
        if hasattr(task, "shards"):
            task.shards = group
        if task_id == "prepare":
            # Only Airflow's scheduler can skip the stages of a large source.
            task.split = None
        ti = Ti(task_id=task_id, map_index=map_index, xcoms=self._xcoms, max_tries=2, **vars(self._run))
        context = {"ti": ti, "task_instance": ti, "dag_run": self._run, "params": self._dag.params.dump()}
        task.render_template_fields(context)
        try:
            value = self._executed(task, context)
        except AirflowSkipException:
            return None
        ti.xcom_push(key="return_value", value=value)
        return value

    def _executed(self, task: Any, context: dict[str, Any]) -> Any:
        call: Callable[[], Any] = partial(task.execute, context)
        while True:
            try:
                return call()
            except TaskDeferred as deferred:
                event = asyncio.run(_first(deferred.trigger))
                if isinstance(event, TaskSuccessEvent):
                    return (event.xcoms or {})["return_value"]
                call = partial(getattr(task, deferred.method_name), context, event.payload)


async def _first(trigger: BaseTrigger) -> TriggerEvent:
    return await anext(trigger.run())


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Install distributions that register services."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def install(distribution: str, **services: str) -> None:
        info = folder / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        points = "".join(f"{name} = {value}\n" for name, value in services.items())
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{points}")
        forget()

    def forget() -> None:
        for found in (registry._registered, registry._loaded):  # noqa: SLF001 - a process finds them once
            found.cache_clear()

    yield install
    forget()


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A pipeline's file, its source, and the servers it names."""
    name = uuid.uuid4().hex[:8]
    for kind, body in (("connectors/acme", CONNECTOR), ("indexes/books", INDEX_BODY)):
        path = tmp_path / f"{kind}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(body))
    (tmp_path / "pipelines").mkdir()
    path = tmp_path / "pipelines" / "books.yaml"
    path.write_text(PIPELINE.format(bucket=name, name=name))
    node = Node()
    with aws("s3") as client:
        client.create_bucket(Bucket=name)
        extra = {"endpoint_url": client.meta.endpoint_url, "region_name": "us-east-1"}
        connections: dict[str, dict[str, Any]] = {
            f"OS_{name}": {"conn_type": "opensearch", "host": "127.0.0.1", "port": node.port},
            f"AWS_{name}": {"conn_type": "aws", "login": "tests", "password": "tests", "extra": extra},
            "ACME_DEFAULT": {"conn_type": "http", "password": KEY},
        }
        for conn_id, value in connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))
        yield SimpleNamespace(path=path, node=node, s3=client, bucket=name)
    node.close()


@pytest.mark.slow
def test_a_fifth_service_takes_a_pipeline_to_the_index(register: Any, pipeline: Any) -> None:
    """From its file to the index: checked, prepared, submitted, waited for, repaired, ingested and accounted for."""
    register("acme", acme="tests.fifth_service:SERVICE")
    assert check_pipeline(pipeline.path, adapter_of).mistakes == []
    rows = [{"id": str(number), "text": "a" * number} for number in range(1, 4)] + [{"id": "4"}]
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    pipeline.s3.put_object(Bucket=pipeline.bucket, Key="in/a.jsonl", Body=content)
    ACME.fails = {"aa"}
    counts = present(DagRun(pipeline.path, "manual__1").run())["counts"]
    assert pipeline.node.documents == {
        str(number): {"text": "a" * number, "vector": [float(number), 1.0]} for number in range(1, 4)
    }
    assert (counts["read"], counts["indexed"], counts["dead_letters"]) == (4, 3, 1)
    assert pipeline.node.connector["credential"] == {"acme_key": KEY}
    paid = len(ACME.jobs)
    assert paid == 2
    assert DagRun(pipeline.path, "manual__2").run() is None
    pipeline.s3.put_object(Bucket=pipeline.bucket, Key="in/a.jsonl", Body=content + b"\n")
    again = present(DagRun(pipeline.path, "manual__3").run())["counts"]
    assert (again["read"], again["unchanged"], len(ACME.jobs)) == (4, 3, paid)


def test_rows_and_files_of_a_fifth_service_are_known(register: Any, pipeline: Any) -> None:
    """Also where nobody names the service: an ingest of rows alone, and a store by URI."""
    assert row_errors().find(b'{"ref":"r0","failure":"out of luck"}') is None
    register("acme", acme="tests.fifth_service:SERVICE")
    assert row_errors().find(b'{"ref":"r0","failure":"out of luck"}') == "out of luck"
    assert row_errors().find(b'{"SageMakerInferenceError":"long"}') == "SageMakerInferenceError: long"
    store = outputs_store(aws_conn_id=f"aws_{pipeline.bucket}")
    uri = f"acme://{ACME.upload(b'rows')}"
    with store.open(uri) as stream:
        assert stream.read() == b"rows"


@pytest.mark.parametrize(
    ("distributions", "message"),
    [
        ([], r"no AI service 'acme'; known: sagemaker, bedrock, openai, cohere\."),
        ([{"acme": "tests.fifth_service:NAME"}], "is not an AiService of this name; fix or uninstall its distribution"),
        ([{"acme": "opensearch_batch.services.openai:SERVICE"}], "is not an AiService of this name"),
        ([{"acme": "tests.nowhere:SERVICE"}], "cannot be loaded: ModuleNotFoundError"),
        ([{"acme": "tests.fifth_service:SERVICE"}, {"acme": "elsewhere:SERVICE"}], "registers the same name"),
        ([{"acmes": "tests.fifth_service:SERVICE"}], r"known: .*, acmes\. Did you mean 'acmes'\?"),
    ],
)  # fmt: skip
def test_a_service_that_cannot_be_used_is_named(
    register: Any, distributions: list[dict[str, str]], message: str
) -> None:
    """The error says which distribution to fix."""
    for number, services in enumerate(distributions):
        register(f"acme{number}", **services)
    with pytest.raises(ConfigError, match=message):
        service_of("acme")


def test_a_name_of_the_package_cannot_be_taken(register: Any) -> None:
    """A distribution must not change what a pipeline's file means."""
    register("acme", openai="tests.fifth_service:SERVICE")
    assert adapter_of("openai").name == "openai"
    assert registry.names() == list(registry.BUILT_IN)
