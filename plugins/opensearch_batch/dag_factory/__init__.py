"""The DAG factory: builds DAGs from pipeline files of this package and of Data Prepper.

A DAG file of two lines is enough. Airflow parses only files that contain the words airflow and DAG::

    from opensearch_batch.dag_factory import dags  # for Airflow

    globals().update(dags("s3://my-bucket/opensearch/"))
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import DAG

logger = logging.getLogger(__name__)


def dags(location: str | Path) -> dict[str, DAG]:
    """Return the DAGs of the valid files in `pipelines/` of a folder or S3 prefix, by id; log the mistakes of others.

    `connectors/` and `indexes/` there may contain bodies that the files name, besides those of this package. S3 is read
    with the Airflow connection `aws_default`.

    Raises:
        ConfigError: there is no `pipelines/`.
        RetriableError: S3 does not respond.
    """
    from opensearch_batch.dag_factory.pipelines import dags_of

    folder_dags = dags_of(str(location))
    for error in folder_dags.errors:
        logger.error("%s", error)
    return {dag.dag_id: dag for dag in folder_dags.dags}


def raise_errors(location: str | Path) -> None:
    """Raise one ConfigError with the mistakes in all files, if there are any.

    An import error removes all DAGs of a DAG file, so a DAG file of its own calls this; Airflow's UI shows its error.
    """
    from opensearch_batch.core.errors import ConfigError
    from opensearch_batch.dag_factory.pipelines import dags_of

    if errors := dags_of(str(location)).errors:
        raise ConfigError("\n".join(map(str, errors)))


def request_dags() -> dict[str, DAG]:
    """Return the DAGs without a pipeline file, by id: `batch_ingestion` for the API, and `replay` for the pages."""
    from opensearch_batch.dag_factory.batch_ingestion import batch_ingestion_dag
    from opensearch_batch.dag_factory.replay import replay_dag

    return {dag.dag_id: dag for dag in (batch_ingestion_dag(), replay_dag())}
