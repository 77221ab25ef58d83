"""Offline machine-learning inference and field-mapped batch ingestion for OpenSearch, as Airflow operators.

The road of the data: `prepare` -> `batch_predict` -> `poll` -> `repair` -> `ingest` -> `reconcile` -> `publish`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]
__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Describe the package to Airflow (entry point ``apache_airflow_provider``)."""
    modules = ["prepare", "batch_predict", "repair", "ingest", "reconcile", "publish", "batch_ingestion", "replay"]
    triggers = ["submit", "poll", "repair", "new_objects"]
    name = "OpenSearch Batch"
    return {
        "package-name": "airflow-provider-opensearch-batch",
        "name": name,
        "description": "Offline inference and field-mapped batch ingestion for OpenSearch.",
        "versions": [__version__],
        "operators": [{"integration-name": name, "python-modules": [f"opensearch_batch.{m}" for m in modules]}],
        "sensors": [{"integration-name": name, "python-modules": ["opensearch_batch.poll"]}],
        "triggers": [{"integration-name": name, "python-modules": [f"opensearch_batch.{m}" for m in triggers]}],
        "hooks": [{"integration-name": name, "python-modules": ["opensearch_batch.hooks"]}],
    }
