"""The stages of include/pipelines/passages.yaml in plain Python, for people who write their own DAGs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, XComArg, task_group

from opensearch_batch.core.pipeline.bodies import packaged_body
from opensearch_batch.dag_factory.schedules import index_asset
from opensearch_batch.operators.base import INGEST_TASK_NAME, JOB_TASK_NAME
from opensearch_batch.operators.batch_predict import OpenSearchBatchPredictOperator
from opensearch_batch.operators.ingest import OpenSearchBatchIngestOperator
from opensearch_batch.operators.prepare import MODEL_ID, OpenSearchPrepareOperator
from opensearch_batch.operators.publish import OpenSearchPublishOperator
from opensearch_batch.operators.reconcile import OpenSearchReconcileOperator
from opensearch_batch.operators.repair import OpenSearchRepairOperator
from opensearch_batch.sensors.ml_task import OpenSearchMLTaskSensor

WORK = "s3://opensearch-batch"
INDEX = "passages-by-hand"
INPUTS = ["$.text"]
FIELD_MAP = {"_id": "$._id", "text": "$.text", "embedding": "prediction"}

with DAG(
    dag_id="example_by_hand",
    description="prepare, batch_predict, poll, ingest, repair, reconcile, publish, built from the public operators.",
    schedule=None,
    catchup=False,
    tags=["opensearch", "sagemaker", "example"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10), "execution_timeout": timedelta(days=1)},
    params={
        "source": Param("s3://documents/passages/", type="string", description="S3 prefix of JSON Lines"),
        "force": Param(default=False, type="boolean", description="Submit (and pay for) new jobs"),
        "max_dead_letters": Param("5%", type="string", description="Share of records that may become dead letters"),
    },
    doc_md=__doc__,
) as dag:
    prepare = OpenSearchPrepareOperator(
        task_id="prepare",
        source="{{ params.source }}",
        work_prefix=WORK,
        service="sagemaker",
        connector=packaged_body("connector", "sagemaker"),
        values={
            "region": "us-east-1",
            "model_name": "all-MiniLM-L6-v2",
            "endpoint_name": "all-MiniLM-L6-v2",
        },
        inputs=INPUTS,
        dimension=384,
        index=INDEX,
        index_body=packaged_body("index_body", "passages"),
        field_map=FIELD_MAP,
        max_records=500,
        max_dead_letters="{{ params.max_dead_letters }}",
    )

    shared: dict[str, Any] = {"work_prefix": WORK, "service": "sagemaker"}
    job: dict[str, Any] = {
        "model_id": MODEL_ID,
        "inputs": INPUTS,
        "retry_interval_s": 5,
        "poll_every_s": 2,
    }
    documents: dict[str, Any] = {"index": INDEX, "field_map": FIELD_MAP, "map_index_template": INGEST_TASK_NAME}

    @task_group(group_id="shards", prefix_group_id=False)
    def stages(shards: XComArg) -> None:
        """Predict, wait, ingest; other shards do not wait for these."""
        batch_predict = OpenSearchBatchPredictOperator(
            task_id="batch_predict", shards=shards, map_index_template=JOB_TASK_NAME, **shared, **job
        )
        poll = OpenSearchMLTaskSensor(task_id="poll", service="sagemaker", poll_every_s=2)
        # Without a job, batch_predict and poll are skipped.
        ingest = OpenSearchBatchIngestOperator(
            task_id="ingest", shards=shards, trigger_rule="none_failed", **shared, **documents
        )
        batch_predict >> poll >> ingest

    repair = OpenSearchRepairOperator(task_id="repair", trigger_rule="none_failed", **shared, **job)
    ingest_repaired = OpenSearchBatchIngestOperator.partial(task_id="ingest_repaired", **shared, **documents).expand(
        shards=repair.output
    )
    reconcile = OpenSearchReconcileOperator(
        task_id="reconcile",
        work_prefix=WORK,
        index=INDEX,
        max_dead_letters="{{ params.max_dead_letters }}",
        trigger_rule="none_failed",
    )
    publish = OpenSearchPublishOperator(
        task_id="publish", index=INDEX, outlets=[index_asset("opensearch_default", INDEX)]
    )
    stages.expand(shards=prepare.output) >> repair
    ingest_repaired >> reconcile >> publish
