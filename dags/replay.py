"""The dead letters of a run once more, after a fix: in the index, in the field map, or in the letters themselves.

What succeeds leaves the queue; what fails stays, with its new reason.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from opensearch_batch.operators.replay import OpenSearchReplayOperator

with DAG(
    dag_id="replay",
    description="Dead letters of an ingest, sent again after a fix.",
    schedule=None,
    catchup=False,
    tags=["opensearch", "ingest"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    params={
        "queue": Param(
            type="string",
            pattern="^s3://[^/]+/.+",
            description_md="Where they lie: `dead_letters` of the task's return value, or of its report.",
        ),
        "field_map": Param(
            None,
            type=["null", "object"],
            additionalProperties={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            description="A mended field map; empty for the one they were made with.",
        ),
        "opensearch_conn_id": Param("opensearch_default", type="string", description="The cluster."),
        "aws_conn_id": Param("aws_default", type="string", description="Keys and address of S3."),
    },
    doc_md=__doc__,
) as dag:
    OpenSearchReplayOperator(
        task_id="replay",
        dead_letters="{{ params.queue }}",
        opensearch_conn_id="{{ params.opensearch_conn_id }}",
        aws_conn_id="{{ params.aws_conn_id }}",
    )
