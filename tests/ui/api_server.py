"""Airflow's api-server in this process, with the plugin's apps; clients sign in as users."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from tests.airflow_in_process import password

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

PREFIX = "/_plugins/_ml"


def root_app() -> FastAPI:
    """Return Airflow's app with the plugin's mounted in it; the DAG `batch_ingestion` runs."""
    with warnings.catch_warnings():
        # Airflow's own packages warn about each other.
        warnings.simplefilter("ignore")
        from airflow import plugins_manager
        from airflow.api_fastapi.app import create_app
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session
        from sqlalchemy import update

        from opensearch_batch.ui.login import DAG_ID

        # Another test may have loaded the plugins while this process had no database.
        for function in (plugins_manager._get_plugins, plugins_manager.get_fastapi_plugins):  # noqa: SLF001 - their caches
            function.cache_clear()
        app = create_app(apps="core")
        with create_session(scoped=False) as session:
            session.execute(update(DagModel).where(DagModel.dag_id == DAG_ID).values(is_paused=False))
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
