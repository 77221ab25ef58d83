"""The pages of a run in progress: lists, the run, its jobs; and who may see them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from fastapi.routing import APIRoute

from include.local_stack.airflow import ADMIN, read_secrets
from tests.airflow_in_process import environ
from tests.end_to_end.own_pipelines import OwnPipelines, Run
from tests.lab import Lab
from tests.waiting import WAIT_S, eventually

pytestmark = pytest.mark.slow
PREFIX, API = "/opensearch-batch", "/_plugins/_ml"
RECORDS = 6


class Browser:
    """A user's requests, with a token or without."""

    def __init__(self, lab: Lab, token: str | None) -> None:
        self.http = requests.Session()
        self.http.trust_env = False
        self._root = lab.stack.addresses.airflow
        if token is not None:
            self.http.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, **how: Any) -> requests.Response:
        """Send one request."""
        return self.http.request(
            method, f"{self._root}{path}", allow_redirects=False, timeout=WAIT_S, stream=path.endswith("/events"), **how
        )

    def page(self, path: str, **form: str) -> str:
        """Return a page, or what a form leads to."""
        response = self.call("POST" if form else "GET", f"{PREFIX}{path}", data=form or None)
        if response.status_code == requests.codes.see_other:
            response = self.call("GET", response.headers["Location"])
        assert response.status_code == 200, response.text
        return response.text


def viewer_token(lab: Lab) -> str:
    """Return the token of a viewer, as Airflow's auth manager makes it; the stack has one user, an admin."""
    secret = read_secrets(lab.stack.home / "airflow").jwt_secret
    with environ({"AIRFLOW__API_AUTH__JWT_SECRET": secret}):
        from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        manager: Any = SimpleAuthManager
        return str(manager().generate_jwt(SimpleAuthManagerUser(username="viewer", role="VIEWER")))


@pytest.fixture(scope="module")
def admin(lab: Lab) -> Browser:
    """The stack's user, signed in with name and password."""
    login = {"username": ADMIN, "password": lab.stack.airflow_password()}
    return Browser(lab, Browser(lab, None).call("POST", "/auth/token", json=login).json()["access_token"])


@pytest.fixture(scope="module")
def run(lab: Lab, admin: Browser) -> Iterator[Run]:
    """A run of two shards: the job of one has ended, that of the other is in flight."""
    own = OwnPipelines(lab)
    name = own.add(shard={"max_records": RECORDS // 2})
    own.put(f"{name}/a.jsonl", 0, RECORDS)
    lab.fault(fault="delay", times=1, seconds=3600)
    started = own.run(name)
    page = f"{PREFIX}/pipelines/{name}/runs/{started.run_id}"

    def is_in_flight() -> bool:
        shown = admin.call("GET", page).text
        return "1 predicted</a>, " in shown and "1 predicting</a>" in shown

    eventually(is_in_flight, "one job that has ended")
    yield started
    lab.no_faults()
    lab.end_delays()
    own.pause()


def test_a_run_is_watched_and_its_job_cancelled(admin: Browser, run: Run) -> None:
    """Over HTTP, as a browser does; `tests/browser` follows a run to its dead letters and searches."""
    name, path = run.dag_id, f"/pipelines/{run.dag_id}/runs/{run.run_id}"
    assert path.replace(":", "%3A").replace("+", "%2B") in admin.page("/")
    assert re.search(rf'<td class="n">{RECORDS}</td>', admin.page(f"/pipelines/{name}"))
    page = admin.page(path)
    assert f"0 of {RECORDS} records" in page
    assert f'data-airflow href="/dags/{name}/runs/' in page
    jobs = admin.page(f"/pipelines/{name}/jobs")
    (job,) = set(re.findall(r'name="job" value="(\w+)"', jobs))
    assert f'value="{job}"' in admin.page("/jobs")
    (task_id,) = set(re.findall(r"<td><code>([\w-]{10,})</code></td>", jobs))
    assert "is being cancelled" in admin.page(f"/pipelines/{name}/jobs/cancel", job=job)
    task = f"{API}/tasks/{task_id}"
    eventually(
        lambda: admin.call("GET", task).json()["state"] in {"CANCELLING", "CANCELLED"}, "the cancellation of the job"
    )
    assert run.wait() == "failed"


def routes(run: Run) -> list[tuple[str, str]]:
    """Return method and path of every route of the pages and of the API."""
    with warnings.catch_warnings():
        # Airflow's own packages warn about each other.
        warnings.simplefilter("ignore")
        from opensearch_batch.ui.api import create_api
        from opensearch_batch.ui.pages import create_pages

    values = {"dag_id": run.dag_id, "run_id": run.run_id, "name": "page.css", "task_id": "batch_ingest.none"}
    found = []
    for prefix, app in ((PREFIX, create_pages()), (API, create_api())):
        for route in app.routes:
            assert isinstance(route, APIRoute), "every route has the dependencies of the app"
            path = re.sub(r"{(\w+)(:path)?}", lambda match: values.get(match[1], "none"), route.path)
            found += [(method, f"{prefix}{path}") for method in sorted(route.methods)]
    return found


def test_nothing_is_answered_without_a_login(lab: Lab, run: Run) -> None:
    """Neither with a wrong token; no answer names the pipeline."""
    found = routes(run)
    assert len(found) > 25
    unauthorized, forbidden = requests.codes.unauthorized, requests.codes.forbidden
    for token, refusals in ((None, {unauthorized}), ("wrong", {unauthorized, forbidden})):
        stranger = Browser(lab, token)
        for method, path in found:
            response = stranger.call(method, path, headers={"Sec-Fetch-Site": "same-origin"})
            # Airflow answers 403 to a wrong token, our API 401.
            assert response.status_code in refusals, (method, path)
            assert run.dag_id not in response.text.replace(path, "")


def test_a_viewer_reads_and_changes_nothing(lab: Lab, run: Run) -> None:
    """What needs more is refused with 403; all else is answered."""
    viewer = Browser(lab, viewer_token(lab))
    refused = set()
    for method, path in routes(run):
        with viewer.call(method, path, data={} if path.startswith(PREFIX) else None) as response:
            assert response.status_code < requests.codes.server_error, (method, path)
            if response.status_code == requests.codes.forbidden:
                refused.add((method, path.replace(run.run_id, "r").replace(run.dag_id, "p")))
    root, run_path = f"{PREFIX}/pipelines/p", f"{PREFIX}/pipelines/p/runs/r"
    assert refused == {
        ("POST", f"{run_path}/replay"),
        ("POST", f"{root}/jobs/cancel"),
        ("GET", f"{root}/search"),
        ("POST", f"{root}/search"),
        ("POST", f"{API}/_batch_ingestion"),
        ("POST", f"{API}/models/none/_batch_predict"),
        ("POST", f"{API}/tasks/batch_ingest.none/_cancel"),
        ("POST", f"{API}/tasks/batch_ingest.none/_cancel_batch"),
    }
