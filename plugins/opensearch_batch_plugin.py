"""Airflow plugin: registers the links of the operators."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from opensearch_batch.links.opensearch import DeadLettersLink, IndexLink, MLTaskLink


class OpenSearchBatchPlugin(AirflowPlugin):
    """The links of the operators."""

    name = "opensearch_batch"
    operator_extra_links = [MLTaskLink(), IndexLink(), DeadLettersLink()]  # noqa: RUF012 - Airflow reads a plain class attribute
