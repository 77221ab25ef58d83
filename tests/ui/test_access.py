"""Nothing is answered without a login, and each user may do what Airflow lets him do with runs of the DAG."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount

from tests.airflow_in_process import password
from tests.documented_requests import DOCUMENTED_SINGLE
from tests.ui.api_server import PREFIX, Api

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

# The app of the pages; `tests.pages` has tests of who may do what there.
PAGES = "/opensearch-batch"
# Who starts or cancels something; everything else only reads.
ACTIONS = {"/_batch_ingestion", "/models/{model_id}/_batch_predict", "/tasks/{task_id}/_cancel"}
ACTIONS |= {"/tasks/{task_id}/_cancel_batch"}


def apps_of(root: FastAPI) -> dict[str, FastAPI]:
    """Return the apps that the plugin mounts, by path."""
    from airflow.plugins_manager import get_fastapi_plugins

    apps: list[FastAPI] = [each["app"] for each in get_fastapi_plugins()[0]]
    mounts = [route for route in root.routes if isinstance(route, Mount)]
    found = {mount.path: app for mount in mounts for app in apps if mount.app is app}
    assert list(found) == [PREFIX, PAGES]
    return found


def routes_of(root: FastAPI, prefix: str) -> list[tuple[str, str, str]]:
    """Return method, path and template of every route of the app with this path."""
    return [
        (method, prefix + re.sub(r"{[\w:]+}", "batch_ingest.none", route.path), route.path)
        for route in apps_of(root)[prefix].routes
        if isinstance(route, APIRoute) or pytest.fail(f"{route} is no APIRoute")
        for method in sorted(route.methods)
    ]


def test_every_route_is_closed_without_a_login(root: FastAPI, client: TestClient) -> None:
    """Also the OpenAPI document, and paths that do not exist; no answer makes a browser ask for a password."""
    routes = routes_of(root, PREFIX)
    assert {template for _, _, template in routes} >= {*ACTIONS, "/tasks/{task_id}", "/tasks/_search", "/{path:path}"}
    for method, path, _ in (*routes, *routes_of(root, PAGES)):
        response = client.request(method, path)
        scheme = "Bearer" if path.startswith(PREFIX) else None
        assert (response.status_code, response.headers.get("WWW-Authenticate")) == (401, scheme), (method, path)


def test_a_viewer_starts_and_cancels_nothing(root: FastAPI, sign_in: Callable[[str | None], Api]) -> None:
    """He reads; an operator is stopped nowhere."""
    for method, path, template in routes_of(root, PREFIX):
        found = {
            user: sign_in(user).call(method, path.removeprefix(f"{PREFIX}/"), {}).status_code
            for user in ("viewer", "op")
        }
        assert found["viewer"] == 403 if template in ACTIONS else found["viewer"] not in {401, 403}, (method, path)
        assert found["op"] not in {401, 403}, (method, path)


@pytest.mark.parametrize("user", ["user", "op", "admin"])
def test_who_may_trigger_the_dag_may_ingest(user: str, sign_in: Callable[[str | None], Api]) -> None:
    """Each role of Airflow that may start runs."""
    assert sign_in(user).ok("POST", "_batch_ingestion", DOCUMENTED_SINGLE)["status"] == "CREATED"


def test_a_token_of_airflow_signs_in(client: TestClient) -> None:
    """As it does for Airflow's own API."""
    answer = client.post("/auth/token", json={"username": "viewer", "password": password("viewer")})
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert client.get(f"{PREFIX}/tasks/_search", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer no-token",
        "Bearer ",
        "Basic !",
        "Basic " + base64.b64encode(b"viewer").decode(),
        "Basic " + base64.b64encode(b"viewer:\xff").decode(),
        "Basic " + base64.b64encode(b"viewer:wrong").decode(),
        "Basic " + base64.b64encode(b":").decode(),
        "AWS4-HMAC-SHA256 Credential=any",
    ],
)
def test_any_other_login_is_refused(client: TestClient, authorization: str) -> None:
    """With the same status as none."""
    headers = {"Authorization": authorization}
    assert Api(client, None).refused(401, "GET", "tasks/_search", headers=headers)


def test_the_cookie_of_the_ui_is_no_login(client: TestClient) -> None:
    """A page of another site could make a browser send it."""
    answer = client.post("/auth/token", json={"username": "op", "password": password("op")})
    client.cookies.set("_token", answer.json()["access_token"])
    assert client.get("/api/v2/dags").status_code == 200
    assert client.get(f"{PREFIX}/tasks/_search").status_code == 401


def test_an_auth_manager_without_passwords_takes_tokens_only(
    root: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its app has no endpoint that takes a password, or it has no app at all."""
    answer = client.post("/auth/token", json={"username": "op", "password": password("op")})
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    routes = [route for route in root.router.routes if getattr(route, "path", "") != "/auth"]
    monkeypatch.setattr(root.router, "routes", routes)
    assert "checks no passwords" in Api(client, "op").refused(401, "GET", "tasks/_search")
    assert client.get(f"{PREFIX}/tasks/_search", headers=headers).status_code == 200
