"""Base of the stages of a Data Prepper pipeline, and their `prepare`, which scans the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.jobs.contract import job_keys
from opensearch_batch.core.jobs.predict_action import check_realtime
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.runs.run_summary import first_start, record_start
from opensearch_batch.core.runs.shard_groups import chunks, grouped
from opensearch_batch.core.storage.conditional_writes import require_conditional_writes
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.datasets import RunDatasets, index_dataset, objects_dataset
from opensearch_batch.core.types.manifest import Shard, ShardGroup
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.file_conn_ids import MODEL, SOURCE, file_conn_id
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.hooks.pipeline_files import local_file
from opensearch_batch.operators.base import (
    PrepareOperator,
    is_dry_run,
    is_forced,
    max_groups,
    run_end_check,
    run_key_of,
)
from opensearch_batch.operators.log_tables import log_counts
from opensearch_batch.services.registry import adapter_of, row_errors

if TYPE_CHECKING:
    from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
    from opensearch_batch.core.data_prepper.file.ml_inference import MlInference
    from opensearch_batch.core.data_prepper.work_item_ingest import WorkItemIngest


# The XCom `run` of a scan that found nothing to do; if the XCom is missing, `prepare` failed.
NO_WORK: dict[str, Any] = {"manifest": None, "model_id": "", "rows": []}


class ScanOperator(BaseOperator):
    """Base of the stages of a Data Prepper pipeline; the file contains all other settings.

    Args:
        file: the pipeline's file.
        pipeline: the pipeline's name in the file.
    """

    def __init__(self, *, file: str, pipeline: str, **kwargs: Any) -> None:  # noqa: ANN401 - BaseOperator's own arguments
        super().__init__(**kwargs)
        self.file = file
        self.pipeline = pipeline

    def _compiled(self) -> CompiledPipeline:
        """Compile the pipeline from the current content of its file."""
        from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline

        with local_file(self.file) as path:
            return CompiledPipeline.load(path, self.pipeline, self.file)

    def _store(self, *keys: str | int) -> S3Objects:
        """Return the object storage that a block of the file names; without keys, that of the source."""
        return object_storage(self._conn_id(*(keys or (SOURCE,))))

    def _hook(self, *keys: str | int) -> OpenSearchMLHook:
        """Return the hook for the cluster that a block of the file names."""
        return OpenSearchMLHook(self._conn_id(*keys))

    def _cluster(self, number: int) -> Cluster:
        """Return the cluster of a sink."""
        return self._hook("sink", number).cluster

    def _datasets(self, compiled: CompiledPipeline, reports: Iterable[Sequence[IngestReport]]) -> RunDatasets:
        """Return the source's prefixes and the sinks' targets; each element of `reports` has one report per sink."""
        buckets = compiled.source.buckets
        read = [f"s3://{each.name}/{prefix}" for each in buckets for prefix in each.include_prefix or ("",)]
        targets = dict.fromkeys((number, report.index) for each in reports for number, report in enumerate(each))
        written = [
            objects_dataset(name) if "://" in name else index_dataset(self._cluster(number).url, name)
            for number, name in targets
        ]
        return RunDatasets(list(dict.fromkeys(map(objects_dataset, read))), list(dict.fromkeys(written)))

    def _work_item_ingest(self, compiled: CompiledPipeline, run_key: str, at: datetime) -> WorkItemIngest:
        """Return the object that ingests this run's work items into the sinks."""
        from opensearch_batch.core.data_prepper.work_item_ingest import WorkItemIngest

        sink_store = partial(self._store, "sink")
        return WorkItemIngest(
            compiled, self._store(), self._cluster, sink_store, row_errors=row_errors(), run_key=run_key, at=at
        )

    def _conn_id(self, *keys: str | int) -> str:
        return file_conn_id(self.file, self.pipeline, *keys)


class OpenSearchScanPrepareOperator(ScanOperator, PrepareOperator):
    """Scan the source of a Data Prepper pipeline.

    Returns groups of shards, one shard for each job, and pushes the XCom ``run``: ``{manifest, model_id, rows}``.
    `rows` are groups of the ids of work items that need no job. A run with the param ``dry_run`` claims no work items.
    The arguments are those of `ScanOperator`.

    Raises:
        AirflowFailException: the configuration or the source has an error; nothing was paid for.
        RetriableError: a server did not respond.
    """

    # The api-server's pages read these from the DAG that Airflow stores.
    template_fields = ("file", "pipeline")

    def _prepare(self, context: Context) -> Sequence[ShardGroup]:
        from opensearch_batch.core.data_prepper.compiled_pipeline import now
        from opensearch_batch.core.data_prepper.scan_prepare import Scan, ScanManifest

        compiled, scanned_at = self._compiled(), now()
        dry_run, force, run_key, store = is_dry_run(context), is_forced(context), run_key_of(context), self._store()
        self._skip_beyond_count(compiled, store, context)
        if not dry_run:
            require_conditional_writes(store, compiled.layout.conditional_writes())
        scan = Scan(
            compiled,
            store,
            run=context["dag_run"].run_id,
            at=scanned_at,
            processing_digest=self._check_indexes(compiled, run_key, scanned_at),
            is_over=run_end_check(context),
        )
        work_items, counts = scan.plan(force=force, writes=not dry_run)
        log_counts(self.log, "objects of the scan", counts)
        if dry_run:
            for item in work_items:
                self.log.info(
                    "dry run: %s %s: %d objects, %d bytes", item.kind, item.id, len(item.objects), item.size_bytes
                )
            context["ti"].xcom_push(key="run", value=NO_WORK)
            return []
        shards, ended_badly, model_id = list[Shard](), list[str](), ""
        if compiled.ml is not None and any(item.kind == "job" for item in work_items):
            model_id = compiled.ml.model_id
            shards, ended_badly = scan.shards(work_items, self._job_keys(compiled.ml), force=force)
        rows, jobs = [item.id for item in work_items if item.kind == "data"], {shard.id for shard in shards}
        work_items = [item for item in work_items if item.kind == "data" or item.id in jobs]
        for job in ended_badly:
            self.log.warning("%s: this job did not succeed; clear its batch_predict to pay for another one", job)
        manifest = ScanManifest(
            compiled.pipeline.name,
            run_key,
            scanned_at,
            counts,
            work_items,
            shards,
            model_id,
            ended_badly,
            context["dag_run"].run_id,
            first_start(store, compiled.layout, run_key, now=scanned_at.timestamp()),
        )
        uri = compiled.layout.manifest(run_key)
        save(store, uri, manifest)
        record_start(store, compiled.layout, manifest)
        self._push(context, uri, manifest, rows=chunks(rows, at_most=max_groups()))
        self.log.info("%d jobs, %d work items without a job; manifest %s", len(shards), len(rows), uri)
        return grouped(shards, at_most=max_groups())

    def _skip_beyond_count(self, compiled: CompiledPipeline, store: S3Objects, context: Context) -> None:
        """Skip a scheduled scan beyond `scheduling.count`; a manual run always scans."""
        from opensearch_batch.core.data_prepper.scan import scan_head

        scheduling = compiled.source.scheduling
        limit = scheduling.count if scheduling is not None else None
        if limit is None or context["dag_run"].run_type == "manual":
            return
        scans = scan_head(store, compiled.layout).load().scans
        if scans >= limit:
            context["ti"].xcom_push(key="run", value=NO_WORK)
            raise AirflowSkipException(f"all {limit} scans of scheduling.count are done; pause the DAG")

    def _check_indexes(self, compiled: CompiledPipeline, run_key: str, at: datetime) -> str:
        """Check the indexes that exist; return a digest of how work items are processed."""
        from opensearch_batch.core.ingest.sinks.index_target import refuse_plain_vectors

        ingest = self._work_item_ingest(compiled, run_key, at)
        indexes = ingest.indexes(at)
        for index in indexes:
            if index is not None:
                refuse_plain_vectors(index, compiled.prediction_fields())
        return ingest.processing_digest(indexes)

    def _job_keys(self, ml: MlInference) -> Callable[[str], str]:
        adapter, model = adapter_of(ml.service_name), self._hook(MODEL).ml.model(ml.model_id)
        if ml.action_type == "predict":
            check_realtime(adapter, model.actions, model.parameters)
        return job_keys(adapter, model.parameters)


class OpenSearchScanRowsOperator(BaseOperator):
    """Return groups of ids of the work items that need no job: Airflow only maps over the return value of a task."""

    ui_color = "#e8f0fe"

    def execute(self, context: Context) -> list[list[str]]:
        """Return the groups from the XCom of `prepare`."""
        run = context["ti"].xcom_pull(task_ids="prepare", key="run")
        return list(run["rows"]) if run else []
