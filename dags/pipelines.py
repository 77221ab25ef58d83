"""One DAG per file of include/pipelines/; what is wrong with a file shows as the import error of refused_pipelines.py.

Airflow reads only files that hold the words airflow and DAG (``dag_discovery_safe_mode``), as this sentence does.
"""

from __future__ import annotations

from pathlib import Path

from opensearch_batch.dag_factory.pipelines import pipelines

PIPELINES = Path(__file__).resolve().parent.parent / "include" / "pipelines"

# Not by a loop: its variable would take the place of a pipeline that is called like it.
globals().update({dag.dag_id: dag for dag in pipelines(PIPELINES).dags})
