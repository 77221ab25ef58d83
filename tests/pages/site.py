"""The pages in this process: Airflow's auth manager and database are real, the files of the runs are in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.api_fastapi.app import get_auth_manager, init_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.auth.middlewares.refresh_token import JWTRefreshMiddleware
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete

from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.identity import run_key
from opensearch_batch.ui.pages import PREFIX, create_pages
from tests.airflow_in_process import ROLES
from tests.core.memory_objects import MemoryObjects
from tests.core.whole_runs import Pipeline, Run

DAG_ID, WORK = "passages", "s3://opensearch-batch"


class Site:
    """A site with the pages, and the files of the runs of the pipeline `passages`."""

    def __init__(
        self,
        objects: MemoryObjects | None = None,
        cluster: Cluster | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pipeline = Pipeline(max_dead_letters="100%")
        self.pipeline.layout = Layout(WORK, DAG_ID)
        reader = CachedReader(objects or self.pipeline.objects, clock=clock)
        self.pages = create_pages(lambda _: reader, lambda _: cluster or self.pipeline.cluster)
        self.root = FastAPI()
        self.root.add_middleware(JWTRefreshMiddleware)
        init_auth_manager(self.root)
        self.root.mount(PREFIX, self.pages)

    def run(self, run_id: str) -> Run:
        """Begin a run of the pipeline, which has the files of the DAG run of this id."""
        run = self.pipeline.new_run()
        run.key = run_key(DAG_ID, run_id)
        return run

    def client(self, user: str | None = "admin", **how: Any) -> TestClient:
        """Return a browser in which a user is signed in to Airflow's UI."""
        client = TestClient(self.root, follow_redirects=False, **how)
        if user is not None:
            client.cookies["_token"] = token_of(user)
        return client


class Browser:
    """What one user does with the pages; forms come from a page of the site."""

    def __init__(self, site: Site, user: str | None = "admin") -> None:
        self.http = site.client(user)

    def get(self, path: str = "/", **params: Any) -> Any:
        """Open a page."""
        return self.http.get(f"{PREFIX}{path}", params=params)

    def page(self, path: str = "/", **params: Any) -> str:
        """Return a page that is shown."""
        response = self.get(path, **params)
        assert response.status_code == 200, response.text
        return str(response.text)

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        """Send a form."""
        sent = {"Sec-Fetch-Site": "same-origin"} if headers is None else headers
        return self.http.post(f"{PREFIX}{path}", data=fields, headers=sent)


def token_of(user: str) -> str:
    """Return a token of Airflow for a user."""
    found: Any = get_auth_manager()
    return str(found.generate_jwt(SimpleAuthManagerUser(username=user, role=ROLES[user])))


def store_run(run_id: str, state: str = "success", *, dag_id: str = DAG_ID, minutes: int = 1, conf: Any = None) -> None:
    """Store a run in Airflow's database, which began a while ago."""
    began_at = datetime.now(UTC) - timedelta(minutes=minutes)
    with create_session() as session:
        run = DagRun(dag_id=dag_id, run_id=run_id, run_type="manual", run_after=began_at, conf=conf)
        run.state = DagRunState(state)
        run.start_date, run.end_date = began_at, began_at + timedelta(seconds=30)
        session.add(run)


def store_tasks(run_id: str, *, dag_id: str = DAG_ID, **map_indexes: list[int]) -> None:
    """Store the instances of tasks of a run by their map indexes, all of which succeeded."""
    with create_session() as session:
        dag = SerializedDagModel.get(dag_id, session=session)
        assert dag is not None
        for task_id, indexes in map_indexes.items():
            task = dag.dag.get_task(task_id)
            for index in indexes:
                ti = TaskInstance(task, dag_version_id=dag.dag_version_id, run_id=run_id, map_index=index)
                ti.state = TaskInstanceState.SUCCESS
                session.add(ti)


def forget_runs() -> None:
    """Delete all runs from Airflow's database."""
    with create_session() as session:
        session.execute(delete(DagRun))
