"""One DAG for each file of include/pipelines/; refused_pipelines.py shows the errors of files as its import error.

Airflow parses only files that contain the words airflow and DAG (``dag_discovery_safe_mode``), as this one does.
"""

from __future__ import annotations

from pathlib import Path

from opensearch_batch.dag_factory import dags

globals().update(dags(Path(__file__).resolve().parent.parent / "include"))
