"""Contains no DAG: it fails to import if a file of include/pipelines/ is invalid, so the Airflow UI shows the errors.

An import error removes all DAGs of a file, so the valid pipelines are in another one, pipelines.py.
"""

from __future__ import annotations

from pathlib import Path

from opensearch_batch.dag_factory import raise_errors

raise_errors(Path(__file__).resolve().parent.parent / "include")
