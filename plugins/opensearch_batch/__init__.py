"""Offline machine-learning inference and field-mapped batch ingestion for OpenSearch, as Airflow operators.

Stages: `prepare` -> `batch_predict` -> `poll` -> `repair` -> `ingest` -> `reconcile` -> `publish`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]
__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Describe the package to Airflow (entry point ``apache_airflow_provider``)."""
    name = "OpenSearch Batch"
    stages = ["prepare", "spread", "batch_predict", "repair", "ingest", "reconcile", "publish"]
    stages += ["batch_ingestion", "replay"]

    def integration(package: str, modules: list[str]) -> list[dict[str, Any]]:
        return [
            {"integration-name": name, "python-modules": [f"opensearch_batch.{package}.{module}" for module in modules]}
        ]

    return {
        "package-name": "airflow-provider-opensearch-batch",
        "name": name,
        "description": "Offline inference and field-mapped batch ingestion for OpenSearch.",
        "versions": [__version__],
        "operators": integration("operators", stages),
        "sensors": integration("sensors", ["ml_task"]),
        "triggers": integration("triggers", ["ml_task", "repair", "submission", "new_objects"]),
        "hooks": integration("hooks", ["opensearch", "aws", "ai_services"]),
    }
