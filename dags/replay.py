"""Ingests the dead letters of a run again, after a fix of the index, of the field map, or of the dead letters.

A dead letter that is indexed is removed from the queue; one that fails again remains, with its new reason.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from opensearch_batch.operators.replay import OpenSearchReplayOperator

CONN_ID = r"^[\w.-]+$"

with DAG(
    dag_id="replay",
    description="Ingests dead letters again after a fix.",
    schedule=None,
    catchup=False,
    tags=["opensearch", "ingest"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10), "execution_timeout": timedelta(days=1)},
    params={
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
    },
    doc_md=__doc__,
) as dag:
    OpenSearchReplayOperator(
        task_id="replay",
        dead_letters="{{ params.queue }}",
        opensearch_conn_id="{{ params.opensearch_conn_id }}",
        aws_conn_id="{{ params.aws_conn_id }}",
    )
