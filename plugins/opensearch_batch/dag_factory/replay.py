"""Ingests the dead letters of a run again, after a fix of the index, of the field map, or of the dead letters.

A dead letter that is indexed is removed from the queue; one that fails again remains, with its new reason.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from opensearch_batch.dag_factory.forms import DAY_S, task_defaults
from opensearch_batch.operators.replay import OpenSearchReplayOperator

CONN_ID = r"^[\w.-]+$"
PARAMS = {
    "queue": Param(
        type="string",
        pattern="^s3://[^/]+/.+",
        description_md="Location of the dead letters: `dead_letters` of an ingest task's return value or report.",
    ),
    "field_map": Param(
        None,
        type=["null", "object"],
        additionalProperties={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        description="A corrected field map; if empty, the field map of the failed run.",
    ),
    "opensearch_conn_id": Param("opensearch_default", type="string", pattern=CONN_ID, description="The cluster."),
    "aws_conn_id": Param("aws_default", type="string", pattern=CONN_ID, description="Keys and endpoint of S3."),
}


def replay_dag() -> DAG:
    """Return the DAG `replay`, which the pages start."""
    with DAG(
        dag_id="replay",
        auto_register=False,
        description="Ingests dead letters again after a fix.",
        schedule=None,
        catchup=False,
        tags=["opensearch", "ingest"],
        default_args=task_defaults("airflow", DAY_S),
        params=PARAMS,
        doc_md=__doc__,
    ) as dag:
        OpenSearchReplayOperator(
            task_id="replay",
            dead_letters="{{ params.queue }}",
            opensearch_conn_id="{{ params.opensearch_conn_id }}",
            aws_conn_id="{{ params.aws_conn_id }}",
        )
    return dag
