"""One DAG per file of include/pipelines/; a mistake in one shows as an import error with its file and line.

Airflow reads only files that hold the words airflow and DAG (``dag_discovery_safe_mode``), as this sentence does.
"""

from __future__ import annotations

from pathlib import Path

from opensearch_batch.pipelines import pipeline_dag

PIPELINES = Path(__file__).resolve().parent.parent / "include" / "pipelines"

for path in sorted(PIPELINES.glob("*.yaml")):
    globals()[path.stem] = pipeline_dag(path)
