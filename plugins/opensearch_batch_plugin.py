"""Airflow plugin: registers the links of the operators, and what the api-server serves: pages and an API."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.configuration import conf

from opensearch_batch.links.opensearch import DeadLettersLink, IndexLink, MLTaskLink


class _AppsOfApiServer:
    """Builds the apps when they are read: every process of Airflow imports this file, and only the api-server reads."""

    def __get__(self, plugin: AirflowPlugin | None, owner: type[AirflowPlugin]) -> list[dict[str, Any]]:
        from opensearch_batch.ui.api import fastapi_apps
        from opensearch_batch.ui.pages import page_apps

        return [*fastapi_apps(), *page_apps()]


def _views() -> list[dict[str, Any]]:
    """Return the pages that Airflow's UI shows: one in its navigation, and a tab of each DAG, run and task instance."""
    # Behind a proxy, all addresses have the path of Airflow's own.
    root = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + "/opensearch-batch"
    run = f"{root}/pipelines/{{DAG_ID}}/runs/{{RUN_ID}}"
    hrefs = {"nav": f"{root}/", "dag": f"{root}/pipelines/{{DAG_ID}}", "dag_run": run, "task_instance": run}
    return [
        {
            "name": "Pipelines" if destination == "nav" else "Pipeline",
            "href": href,
            "destination": destination,
            "url_route": f"opensearch-batch-{destination.replace('_', '-')}",
            "icon": f"{root}/static/icon.svg",
        }
        for destination, href in hrefs.items()
    ]


class OpenSearchBatchPlugin(AirflowPlugin):
    """The links of the operators, the pages and the API."""

    name = "opensearch_batch"
    operator_extra_links = [MLTaskLink(), IndexLink(), DeadLettersLink()]  # noqa: RUF012 - Airflow reads a plain class attribute
    fastapi_apps = _AppsOfApiServer()
    external_views = _views()
