"""What the pages do: replay dead letters, cancel jobs, search."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.utils.session import create_session
from sqlalchemy import select, update

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.hooks.shared_clients import SharedClients
from tests.pages.site import DAG_ID, Browser, Site, store_run
from tests.scripted import Scripted


@pytest.fixture
def _replay_runs(airflow: None) -> Iterator[None]:  # noqa: ARG001 - it has to be there
    """The DAG `replay` is not paused."""
    pause_replay(is_paused=False)
    yield
    pause_replay(is_paused=True)


def pause_replay(*, is_paused: bool) -> None:
    """Pause or unpause the DAG."""
    with create_session() as session:
        session.execute(update(DagModel).where(DagModel.dag_id == "replay").values(is_paused=is_paused))


def replays() -> list[tuple[str, Any]]:
    """Return who started which replays."""
    with create_session() as session:
        rows = session.execute(select(DagRun.triggering_user_name, DagRun.conf).where(DagRun.dag_id == "replay"))
        return [(name, conf) for name, conf in rows]


def locations_in(page: str) -> list[str]:
    """Return the locations that the form offers."""
    return [part.partition('"')[0] for part in page.split('name="location" value="')[1:]]


@pytest.mark.usefixtures("_replay_runs")
def test_dead_letters_are_replayed_by_the_dag(site: Site, run_path: str) -> None:
    """The DAG gets the location and the pipeline's connections; the audit log and the page tell who began it."""
    user = Browser(site, "user")
    (location,) = locations_in(user.page(f"{run_path}/dead-letters"))
    assert "/dead_letters/ingest-" in location
    response = user.post(f"{run_path}/replay", location=location)
    assert response.status_code == 303
    assert response.headers["Location"].endswith("/dead-letters?started=1")
    conf = {"queue": location, "opensearch_conn_id": "opensearch_default", "aws_conn_id": "aws_default"}
    assert replays() == [("user", conf)]
    with create_session() as session:
        logged = session.scalars(select(Log).where(Log.event == "replay_dead_letters")).one()
        assert (logged.owner, json.loads(logged.extra or "")) == ("user", conf)
    page = user.http.get(response.headers["Location"]).text
    assert "1 replay started" in page
    assert "queued" in page
    again = user.post(f"{run_path}/replay", location=location)
    assert again.headers["Location"].endswith("/dead-letters?started=0")
    assert len(replays()) == 1


@pytest.mark.usefixtures("_replay_runs")
def test_only_locations_of_the_run_are_replayed(browser: Browser, run_path: str) -> None:
    """A form cannot name another queue, nor none."""
    for locations in ([], ["s3://elsewhere/"], [*locations_in(browser.page(f"{run_path}/dead-letters")), "s3://e/"]):
        response = browser.post(f"{run_path}/replay", location=locations)
        assert (response.status_code, "Choose between 1 and 20" in response.text) == (400, True)
    assert replays() == []


def test_a_paused_replay_says_so(browser: Browser, run_path: str) -> None:
    """A run of a paused DAG would wait unseen."""
    location = locations_in(browser.page(f"{run_path}/dead-letters"))
    response = browser.post(f"{run_path}/replay", location=location)
    assert (response.status_code, "The DAG replay is paused; unpause it in Airflow." in response.text) == (503, True)


def test_a_viewer_sees_dead_letters_and_no_button(site: Site, run_path: str) -> None:
    """Who may not start the DAGs is told which permission that takes."""
    page = Browser(site, "viewer").page(f"{run_path}/dead-letters")
    assert "<button" not in page
    assert "the permission to start this DAG" in page


class RunningJob:
    """A pipeline with a job in flight, and the node that knows its task."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch, node: Scripted) -> None:
        pipeline = site.pipeline
        # A run that began long ago has no job that still runs.
        pipeline.clock = time.time()
        pipeline.put("a.jsonl", {"id": "d", "text": "t"})
        store_run("r1", "running")
        run = site.run("r1")
        run.prepare()
        assert run.manifest is not None
        self.shard: Shard = run.manifest.shards[0]
        record = JobRecord(self.shard.job, "name", "openai", "m", "in", "out", 1e9, ml_task_id="task-1")
        JobRecords(pipeline.objects, pipeline.layout.job(record.job)).write(record, etag=None)
        clients = SharedClients()
        clients.get(("aws", "aws_default"), lambda: pipeline.objects)
        monkeypatch.setattr("opensearch_batch.hooks.shared_clients._clients", clients)
        conn = {"conn_type": "opensearch", "host": "127.0.0.1", "port": node.port, "extra": {"use_ssl": False}}
        monkeypatch.setenv("AIRFLOW_CONN_OPENSEARCH_DEFAULT", json.dumps(conn))
        node.answer = lambda _: (200, {"status": "OK"})


@pytest.fixture
def node() -> Iterator[Scripted]:
    """A node."""
    server = Scripted()
    yield server
    server.close()


def test_a_job_in_flight_is_cancelled_at_ml_commons(
    site: Site, monkeypatch: pytest.MonkeyPatch, node: Scripted
) -> None:
    """Only who may change runs does it, and only a job of this pipeline."""
    job = RunningJob(site, monkeypatch, node).shard.job
    viewer, user = Browser(site, "viewer"), Browser(site, "user")
    assert "Cancel the job" not in viewer.page(f"/pipelines/{DAG_ID}/jobs")
    page = user.page(f"/pipelines/{DAG_ID}/jobs")
    assert "task-1" in page
    assert "Cancel the job" in page
    assert user.post(f"/pipelines/{DAG_ID}/jobs/cancel", job="0" * 32).status_code == 404
    assert user.post("/pipelines/passages_daily/jobs/cancel", job=job).status_code == 404
    assert node.bodies == []
    response = user.post(f"/pipelines/{DAG_ID}/jobs/cancel", job=job)
    assert response.status_code == 303
    assert len(node.bodies) == 1
    assert "is being cancelled" in user.http.get(response.headers["Location"]).text


def test_the_jobs_of_all_pipelines_are_those_that_a_user_may_read(
    site: Site, monkeypatch: pytest.MonkeyPatch, node: Scripted
) -> None:
    """Each with the button of its own pipeline; a pipeline without jobs is left out."""
    job = RunningJob(site, monkeypatch, node).shard.job
    store_run("other", "running", dag_id="passages_daily")
    page = Browser(site, "user").page("/jobs")
    assert page.count("task-1") == 1
    assert f'action="/opensearch-batch/pipelines/{DAG_ID}/jobs/cancel"' in page
    assert f'name="job" value="{job}"' in page
    assert "passages_daily" not in page
    assert "Cancel the job" not in Browser(site, "viewer").page("/jobs")
    assert "No job of a pipeline that you may read is in flight." in Browser(site, "neighbour").page("/jobs")
    with create_session() as session:
        session.execute(update(DagRun).where(DagRun.run_id == "r1").values(state="failed"))
    assert "task-1" in Browser(site, "user").page("/jobs")


MAPPINGS = {"properties": {"text": {"type": "text"}, "v": {"type": "knn_vector", "dimension": 2}}}
INDEX = {"books": {"settings": {"index": {"uuid": "u"}}, "mappings": MAPPINGS}}


def hits(*sources: Any) -> Any:
    """Return the answer to a search."""
    return {"hits": {"hits": [{"_id": f"d{at}", "_score": 1.0, "_source": each} for at, each in enumerate(sources)]}}


@pytest.fixture
def searching(site: Site, run_path: str, node: Scripted) -> Browser:
    """A browser of a site whose index is at the node."""
    assert run_path
    cluster: Cluster = node.cluster
    site.pages.state.services.cluster_of = lambda _: cluster
    return Browser(site, "user")


def test_a_question_is_asked_in_three_ways_without_vectors(searching: Browser, node: Scripted) -> None:
    """A query that fails does not hide the others."""
    found = hits({"text": "<b>waves</b>", "more": "and more"})
    node.answers = [
        (200, INDEX),
        (200, found),
        (400, {"error": {"type": "x", "reason": "no such model"}}),
        (200, found),
    ]
    page = searching.post(f"/pipelines/{DAG_ID}/search", question=" waves ").text
    assert page.count("&lt;b&gt;waves&lt;/b&gt;") == 4
    assert "no such model" in page
    neural, text, hybrid = (json.loads(body) for body in node.bodies[1:])
    assert neural["query"]["neural"]["v"] == {"query_text": "waves", "model_id": "m", "k": 50}
    assert text["query"] == {"match": {"text": "waves"}}
    assert hybrid["query"]["hybrid"]["queries"] == [neural["query"], text["query"]]
    assert {json.dumps(each["_source"]) for each in (neural, text, hybrid)} == {'{"excludes": ["v"]}'}


def test_more_like_a_document_asks_by_its_vector(searching: Browser, node: Scripted) -> None:
    """No model is called; the document itself is not among its neighbours."""
    vector = hits({"v": [0.5, 1.0]})
    node.answers = [(200, INDEX), (200, vector), *[(200, hits({"text": "near"}))] * 3]
    page = searching.post(f"/pipelines/{DAG_ID}/search", like="d0").text
    assert page.count("near") >= 3
    neural, text, _ = (json.loads(body) for body in node.bodies[2:])
    assert neural["query"]["bool"] == {
        "must": [{"knn": {"v": {"vector": [0.5, 1.0], "k": 50}}}],
        "must_not": [{"ids": {"values": ["d0"]}}],
    }
    assert text["query"]["more_like_this"]["like"] == [{"_index": "books", "_id": "d0"}]
    node.answers = [(200, INDEX), (200, hits())]
    assert "has no document" in searching.post(f"/pipelines/{DAG_ID}/search", like="gone").text


def test_a_pipeline_without_runs_is_not_searched(site: Site) -> None:
    """Nobody knows the index and the model yet."""
    page = Browser(site).post("/pipelines/passages_daily/search", question="q").text
    assert "no run has written documents yet" in page
