"""Airflow's api-server in this process, with the plugin's app, a database and users; no scheduler runs anything."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from include.local_stack.airflow import Airflow
from include.local_stack.settings import REPOSITORY, Ports, options_from_environment

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

PREFIX = "/_plugins/_ml"
# Each has the role of his name.
USERS = ("admin", "op", "user", "viewer")
PORTS = Ports(opensearch=1, opensearch_transport=1, s3=1, ai_services=1, egress=1, airflow=1)
SETTINGS = {
    "_AIRFLOW_PROCESS_CONTEXT": "server",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{name}" for name in USERS),
}


def environment(home: Path) -> dict[str, str]:
    """Prepare an Airflow in a folder; return the settings that differ from the defaults of this process."""
    airflow = Airflow(options_from_environment({**os.environ, "LOCAL_STACK_HOME": str(home)}), PORTS)
    airflow.prepare()
    # The tests' process has chosen its database when it imported Airflow.
    shutil.copyfile(airflow.folder / "airflow.db", Path(os.environ["AIRFLOW_HOME"]) / "airflow.db")
    passwords = {name: password(name) for name in USERS}
    (airflow.folder / "passwords.json").write_text(json.dumps(passwords))
    of_airflow = {name: value for name, value in airflow.environment().items() if name.startswith("AIRFLOW__")}
    del of_airflow["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    return of_airflow | SETTINGS


def password(name: str) -> str:
    """Return the password of a user."""
    return f"{name}-päss:word"


@contextmanager
def environ(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield


def root_app() -> FastAPI:
    """Return Airflow's app with the plugin's mounted in it, and the DAG `batch_ingestion` in the database."""
    with warnings.catch_warnings():
        # Airflow's own packages warn about each other.
        warnings.simplefilter("ignore")
        from airflow import plugins_manager, settings
        from airflow.api_fastapi.app import create_app
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session
        from sqlalchemy import update

        # Another test may have imported Airflow, which reads this setting once, and loaded no plugins.
        settings.PLUGINS_FOLDER = str(REPOSITORY / "plugins")
        for function in (plugins_manager._get_plugins, plugins_manager.get_fastapi_plugins):  # noqa: SLF001 - their caches
            function.cache_clear()
        app = create_app(apps="core")
        DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call] # Airflow's own
        dags = REPOSITORY / "dags"
        bag = BundleDagBag(dags / "batch_ingestion.py", bundle_path=dags, bundle_name="dags-folder")
        assert not bag.import_errors
        sync_bag_to_db(bag, "dags-folder", bundle_version=None)
        with create_session(scoped=False) as session:
            session.execute(update(DagModel).values(is_paused=False))
    return app


class Api:
    """The API as one user sees it, with HTTP basic as clients of OpenSearch send it; None has no login."""

    def __init__(self, client: TestClient, user: str | None) -> None:
        self.client = client
        self.login: dict[str, Any] = {"auth": (user.encode(), password(user).encode())} if user else {}

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Send one request; return the response."""
        sent = {"json": body} if body is not None else {}
        return self.client.request(method, f"{PREFIX}/{path}", **self.login, **sent, **more)

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request that succeeds; return the decoded body."""
        response = self.call(method, path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, status: int, method: str, path: str, body: Any = None, **more: Any) -> str:
        """Send one request that is refused in OpenSearch's form; return the reason."""
        response = self.call(method, path, body, **more)
        found = response.json()
        assert (response.status_code, found["status"]) == (status, status), response.text
        (cause,) = found["error"]["root_cause"]
        assert cause == {"type": found["error"]["type"], "reason": found["error"]["reason"]}
        return str(cause["reason"])
