"""Holds no DAG: it fails to import, and so tells in Airflow's UI, when a file of include/pipelines/ has a mistake.

An import error takes all DAGs of its file with it, so those of the other pipelines stand in pipelines.py.
"""

from __future__ import annotations

from pathlib import Path

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.dag_factory.pipelines import pipelines

PIPELINES = Path(__file__).resolve().parent.parent / "include" / "pipelines"

if refused := pipelines(PIPELINES).refused:
    raise ConfigError("\n".join(str(error) for error in refused))
