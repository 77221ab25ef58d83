"""The task of a `_batch_ingestion` request: which keys it uses for what, and what it tells of its state."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from include.local_stack.s3_server import s3_server
from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.ingest.progress import counts_in_progress
from opensearch_batch.core.runs.run_lists import recent_runs
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.hooks.connections import run_conn_id
from opensearch_batch.operators.batch_ingestion import OpenSearchBatchIngestionOperator
from tests.core.aws import aws
from tests.scripted import accept
from tests.serving import Exchange, Server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ROWS = b'{"id": 1, "t": "a"}\n{"id": 2, "t": "b"}\n'
RUN = "batch_ingest.of-the-test"


def node(request: Exchange) -> None:
    """Answer as a node with one index that accepts every document."""
    body = request.body()
    if request.path.partition("?")[0].endswith("/_bulk"):
        request.reply(*(accept(body) or ()))
    else:
        index = {"settings": {"index": {"uuid": "u"}}, "mappings": {}}
        request.reply(200, {"i": index} if request.command == "GET" else {})


class Task:
    """One attempt of the task of a run, and what it pushes."""

    def __init__(self, source: str, name: str) -> None:
        self.pushed: dict[str, Any] = {}
        self.request = {
            "index_name": "i",
            "field_map": {"_id": "$.id", "t": "$.t"},
            "data_source": {"type": "s3", "source": [source]},
        }
        self._name = name
        # The ids of the tasks of its DAG.
        self.tasks = ["t"]
        # The buckets are those of other tests, too.
        self.work_prefix = f"s3://work/{name}"

    def execute(self, run_id: str = RUN, *, source_conn_id: str | None = None) -> dict[str, Any]:
        """Run the task."""
        with DAG("batch_ingestion", schedule=None):
            operator, *_ = [
                OpenSearchBatchIngestionOperator(
                    task_id=task_id,
                    request=self.request,
                    work_prefix=self.work_prefix,
                    opensearch_conn_id=f"opensearch_{self._name}",
                    aws_conn_id=f"aws_{self._name}",
                    source_conn_id=source_conn_id,
                )
                for task_id in self.tasks
            ]
        ti = SimpleNamespace(
            xcom_push=lambda key, value: self.pushed.update({key: value}), task_id="t", map_index=-1, max_tries=0
        )
        run = SimpleNamespace(dag_id="batch_ingestion", run_id=run_id, conf={})
        context: Any = {"ti": ti, "dag_run": run, "params": {}}
        return operator.execute(context)


class Endpoint:
    """An S3 server with the buckets of all S3 servers of this process; `asked` has the buckets of its requests."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self._server = s3_server()
        application = self._server.app

        def recording(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            self.asked.add(environ["PATH_INFO"].split("/")[1])
            return application(environ, start_response)

        self._server.app = recording
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.port}"

    def connection(self) -> dict[str, Any]:
        """Make a connection."""
        extra = {"region_name": "us-east-1", "endpoint_url": self.url}
        return {"conn_type": "aws", "login": "id", "password": "secret", "extra": extra}

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def endpoints() -> Iterator[tuple[Endpoint, Endpoint]]:
    """Where the platform's keys lead, and those of the run."""
    both = Endpoint(), Endpoint()
    yield both
    for endpoint in both:
        endpoint.close()


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of the buckets: `work`, and `documents` with the source."""
    with aws("s3") as made:
        for bucket in ("work", "letters", "documents"):
            made.create_bucket(Bucket=bucket)
        made.put_object(Bucket="documents", Key="rows.jsonl", Body=ROWS)
        yield made


@pytest.fixture
def task(endpoints: tuple[Endpoint, Endpoint], client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:  # noqa: ARG001 - the buckets
    """The task of the run, and the connection of its run."""
    name, (ours, theirs) = f"of_{uuid.uuid4().hex[:8]}", endpoints
    cluster = Server(node)
    connections = {
        f"opensearch_{name}": {"conn_type": "opensearch", "host": "127.0.0.1", "port": cluster.port},
        f"aws_{name}": ours.connection(),
        run_conn_id("batch_ingestion", RUN): theirs.connection(),
    }
    for conn_id, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__OPENSEARCH_BATCH__REQUEST_CONNECTIONS", f"opensearch_{name},aws_{name},openai_default")
    yield Task("s3://documents/rows.jsonl", name)
    cluster.close()


def test_the_connection_of_the_run_reads_the_sources_and_nothing_else(
    task: Task, endpoints: tuple[Endpoint, Endpoint], client: Any
) -> None:
    """Progress and report are stored with the platform's keys; the XComs have no more than their locations."""
    result = task.execute(source_conn_id=run_conn_id("batch_ingestion", RUN))
    assert (result["state"], result["counts"]["indexed"]) == ("DONE", 2)
    assert [each.asked for each in endpoints] == [{"work"}, {"documents"}]
    assert result["report"].startswith(f"{task.work_prefix}/batch_ingestion/")
    assert set(task.pushed) == {"progress"}
    assert S3Objects(client).head(task.pushed["progress"]) is not None
    # It is done, so it is not the progress of a run at work.
    assert counts_in_progress(S3Objects(client), task.pushed["progress"]) is None


def test_without_one_the_platform_reads_the_sources(task: Task, endpoints: tuple[Endpoint, Endpoint]) -> None:
    """As before."""
    assert task.execute()["counts"]["indexed"] == 2
    assert [each.asked for each in endpoints] == [{"work", "documents"}, set()]


def test_dead_letters_are_written_with_the_keys_of_the_platform(
    task: Task, endpoints: tuple[Endpoint, Endpoint], client: Any
) -> None:
    """Wherever the request wants them."""
    client.put_object(Bucket="documents", Key="rows.jsonl", Body=ROWS + b"{oops\n")
    task.request |= {"dead_letters": "s3://letters/of-this", "max_dead_letters": "50%"}
    result = task.execute(source_conn_id=run_conn_id("batch_ingestion", RUN))
    assert result["counts"]["dead_letters"] == 1
    assert result["dead_letters"].startswith("s3://letters/of-this/")
    assert [each.asked for each in endpoints] == [{"work", "letters"}, {"documents"}]


@pytest.mark.parametrize("run_id", ["another", f"{RUN}x"])
def test_another_run_may_not_use_the_connection_of_a_run(task: Task, run_id: str) -> None:
    """Also one that names it in its conf; nothing of it is pushed."""
    with pytest.raises(AirflowFailException, match="a request may not use connection 'opensearch_batch_run"):
        task.execute(run_id, source_conn_id=run_conn_id("batch_ingestion", RUN))
    assert task.pushed == {}


def test_a_run_whose_credential_was_removed_says_so(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that a user clears after its end: it must not fall back to the platform's keys."""
    conn_id = run_conn_id("batch_ingestion", RUN)
    monkeypatch.delenv(f"AIRFLOW_CONN_{conn_id.upper()}")
    with pytest.raises(AirflowFailException, match="the credential of this run was removed when the run had ended"):
        task.execute(source_conn_id=conn_id)
    assert "send the request again" in task.pushed["error"]


def test_why_a_task_failed_is_pushed(task: Task) -> None:
    """In its first 2,000 characters."""
    task.request["data_source"] = {"type": "s3", "source": ["s3://documents/" + "k" * 3000]}
    with pytest.raises((AirflowFailException, RetriableError), match="s3://documents/kkk"):
        task.execute(source_conn_id=run_conn_id("batch_ingestion", RUN))
    assert len(task.pushed["error"]) == 2000
    assert "s3://documents/kkk" in task.pushed["error"]


def test_a_run_is_in_the_list_of_runs_unless_its_dag_has_other_tasks(task: Task, client: Any) -> None:
    """The files of a run are those of its DAG, so another task's would be taken for these."""
    layout = Layout(task.work_prefix, "batch_ingestion")
    task.tasks = ["t", "another"]
    task.execute("with-others")
    assert recent_runs(CachedReader(S3Objects(client)), layout) == []
    task.tasks = ["t"]
    task.execute()
    (listed,) = recent_runs(CachedReader(S3Objects(client)), layout)
    assert (listed.run_id, listed.index, listed.source) == (RUN, "i", "s3://documents/rows.jsonl")
    assert listed.counts is not None
    assert (listed.counts.read, listed.counts.unchanged) == (2, 2)
