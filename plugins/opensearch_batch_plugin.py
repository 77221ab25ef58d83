"""Airflow plugin: registers the links of the operators, and the API of the api-server."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from opensearch_batch.links.opensearch import DeadLettersLink, IndexLink, MLTaskLink


class _AppsOfApiServer:
    """Builds the apps when they are read: every process of Airflow imports this file, and only the api-server reads."""

    def __get__(self, plugin: AirflowPlugin | None, owner: type[AirflowPlugin]) -> list[dict[str, Any]]:
        from opensearch_batch.ui.api import fastapi_apps

        return fastapi_apps()


class OpenSearchBatchPlugin(AirflowPlugin):
    """The links of the operators, and the API."""

    name = "opensearch_batch"
    operator_extra_links = [MLTaskLink(), IndexLink(), DeadLettersLink()]  # noqa: RUF012 - Airflow reads a plain class attribute
    fastapi_apps = _AppsOfApiServer()
