"""One DAG for each file of include/pipelines/; refused_pipelines.py shows the errors of files as its import error.

Airflow parses only files that contain the words airflow and DAG (``dag_discovery_safe_mode``), as this one does.
"""

from __future__ import annotations

from pathlib import Path

from opensearch_batch.dag_factory.pipelines import dags_of_folder

PIPELINES = Path(__file__).resolve().parent.parent / "include" / "pipelines"

# Not in a loop: its variable would hide a pipeline of the same name.
globals().update({dag.dag_id: dag for dag in dags_of_folder(PIPELINES).dags})
