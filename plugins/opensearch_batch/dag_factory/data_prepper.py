"""Builds a DAG from each pipeline of an unchanged Data Prepper file, with the schedule of its scan.

Tasks: prepare; rows and ingest_rows, for objects with rows that need no job; reconcile; publish, if an index has a
fixed name. A pipeline with ml_inference also has batch_predict, poll and ingest, mapped over the jobs; they run in
parallel with rows and ingest_rows.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, XComArg, task_group

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile, DataPrepperPipeline
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.dag_factory.forms import switch, task_defaults
from opensearch_batch.dag_factory.schedules import index_asset
from opensearch_batch.hooks.file_conn_ids import MODEL, SOURCE, file_conn_id
from opensearch_batch.notifications.alerts import failure_notifier
from opensearch_batch.operators.base import JOB_TASK_NAME
from opensearch_batch.operators.batch_predict import OpenSearchScanBatchPredictOperator
from opensearch_batch.operators.ingest import OpenSearchScanIngestOperator
from opensearch_batch.operators.prepare import MODEL_ID
from opensearch_batch.operators.publish import OpenSearchPublishOperator
from opensearch_batch.operators.reconcile import OpenSearchScanReconcileOperator
from opensearch_batch.operators.scan import OpenSearchScanPrepareOperator, OpenSearchScanRowsOperator
from opensearch_batch.sensors.ml_task import OpenSearchMLTaskSensor

MAX_ACTIVE_RUNS = 16
# The name of an `ingest` task, which has its shards in `work_items`.
SCAN_INGEST_TASK_NAME = JOB_TASK_NAME.replace("task.shards", "task.work_items")


def data_prepper_dags(path: Path, location: str = "") -> list[DAG]:
    """Return a DAG for each pipeline of a file; raise ConfigError if the file is invalid or not supported.

    Tasks, triggers and pages read the file at `location` again; `path` may be a local copy of it.
    """
    file = DataPrepperFile(path, location)
    return [_dag(file, pipeline) for pipeline in file.pipelines]


def _dag(file: DataPrepperFile, pipeline: DataPrepperPipeline) -> DAG:
    compiled = CompiledPipeline(file, pipeline)
    scheduling = pipeline.source.scheduling
    with DAG(
        dag_id=pipeline.name,
        auto_register=False,
        description=f"{file.path.name}: a Data Prepper pipeline",
        schedule="@once" if scheduling is None else timedelta(seconds=scheduling.interval),
        catchup=False,
        # Scheduled runs incur costs, so a user has to unpause the DAG.
        is_paused_upon_creation=True,
        max_active_runs=MAX_ACTIVE_RUNS,
        tags=["opensearch", "data-prepper", *([compiled.ml.service_name] if compiled.ml else []), *file.settings.tags],
        params={
            "dry_run": switch("Log the new objects and what a run would do with them; claim none, submit nothing."),
            "force": switch(
                "Process all objects, not only new ones: submit (and pay for) new jobs, write every row again."
            ),
        },
        default_args=task_defaults(file.settings.owner, file.settings.task_timeout_s),
        on_failure_callback=failure_notifier(file.settings.alerts),
        doc_md=_doc_md(compiled),
    ) as dag:
        _create_tasks(compiled)
    return dag


def _doc_md(compiled: CompiledPipeline) -> str:
    source, sinks = compiled.source, [sink for _, sink in compiled.pipeline.sinks]
    prefixes = ", ".join(
        f"`s3://{bucket.name}/{prefix}` ({bucket.selection})"
        for bucket in source.buckets
        for prefix in bucket.include_prefix or ("",)
    )
    service = f" through {compiled.ml.service_name}" if compiled.ml else ""
    targets = ", ".join(
        f"`{sink.index}`" if isinstance(sink, OpenSearchSink) else f"`s3://{sink.bucket}/`" for sink in sinks
    )
    files = f"Pipeline file: `{compiled.file.path.name}`. Its runs write below `{compiled.layout.root}/`."
    return f"From {prefixes}{service} into {targets}.\n\n{files}"


def _create_tasks(compiled: CompiledPipeline) -> None:
    pipeline_arguments: dict[str, Any] = {"file": compiled.file.location, "pipeline": compiled.pipeline.name}
    prepare = OpenSearchScanPrepareOperator(task_id="prepare", **pipeline_arguments)
    reconcile = OpenSearchScanReconcileOperator(
        task_id="reconcile",
        alerts=compiled.file.settings.alerts,
        # Run even if a job failed, to account for the other work items.
        trigger_rule="all_done",
        **pipeline_arguments,
    )
    if indexes := _indexes_and_assets(compiled):
        reconcile >> OpenSearchPublishOperator(
            task_id="publish", index=indexes[0][0], outlets=[asset for _, asset in indexes]
        )
    if compiled.ml is not None:

        @task_group(group_id="shards", prefix_group_id=False)
        def stages(shards: XComArg) -> None:
            _shard_stages(compiled, shards, pipeline_arguments)

        stages.expand(shards=prepare.output) >> reconcile
    rows = OpenSearchScanRowsOperator(task_id="rows")
    prepare >> rows
    ingest_rows = OpenSearchScanIngestOperator.partial(
        task_id="ingest_rows", map_index_template="{{ task.work_items | join(', ') }}", **pipeline_arguments
    )
    ingest_rows.expand(work_items=rows.output) >> reconcile


def _indexes_and_assets(compiled: CompiledPipeline) -> list[tuple[str, Asset]]:
    """Return each index with a fixed name, and its asset, which can schedule other DAGs."""
    fixed = [sink for _, sink in compiled.pipeline.sinks if isinstance(sink, OpenSearchSink) and "{" not in sink.index]
    conn_id = compiled.file.settings.connections.opensearch
    return [(sink.index, index_asset(conn_id or sink.host, sink.index)) for sink in fixed]


def _shard_stages(compiled: CompiledPipeline, shards: XComArg, pipeline_arguments: dict[str, Any]) -> None:
    ml, file, name, settings = compiled.ml, compiled.file, compiled.pipeline.name, compiled.file.settings
    assert ml is not None  # noqa: S101 - only ml_inference submits jobs
    shared: dict[str, Any] = {
        "service": ml.service_name,
        "opensearch_conn_id": file_conn_id(file.location, name, MODEL),
        "aws_conn_id": file_conn_id(file.location, name, SOURCE),
    }
    batch_predict = OpenSearchScanBatchPredictOperator(
        task_id="batch_predict",
        shards=shards,
        map_index_template=JOB_TASK_NAME,
        work_prefix=compiled.layout.root,
        model_id=MODEL_ID,
        max_jobs_in_flight=settings.max_jobs_in_flight,
        retry_time_window_s=ml.retry_time_window,
        retry_interval_s=ml.retry_interval,
        deadline_s=settings.deadline_s,
        **shared,
    )
    poll = OpenSearchMLTaskSensor(
        task_id="poll", poll_every_s=settings.poll_every_s, deadline_s=settings.deadline_s, **shared
    )
    (
        batch_predict
        >> poll
        >> OpenSearchScanIngestOperator(
            task_id="ingest",
            work_items=shards,
            poll="poll",
            map_index_template=SCAN_INGEST_TASK_NAME,
            **pipeline_arguments,
        )
    )
