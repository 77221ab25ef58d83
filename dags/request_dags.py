"""The DAGs `batch_ingestion` and `replay`, which Airflow's UI, the API and the pages start."""

from __future__ import annotations

from opensearch_batch.dag_factory import request_dags

globals().update(request_dags())
