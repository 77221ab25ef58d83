"""prepare of a Data Prepper pipeline: looks what is new, checks index and model, and hands out jobs and objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.storage.manifests import save
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.hooks.file_connections import MODEL
from opensearch_batch.operators.base import errors_end_the_task, forced, refuse_many, run_is_over, run_key_of
from opensearch_batch.operators.data_prepper.base import DataPrepperOperator

if TYPE_CHECKING:
    from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
    from opensearch_batch.core.data_prepper.work_item_ingest import WorkItemIngest

# What `run` says where nothing is handed out; without it, this stage failed.
NOTHING: dict[str, Any] = {"manifest": None, "model_id": "", "rows": []}


class OpenSearchScanOperator(DataPrepperOperator):
    """Scan the source of a pipeline.

    Returns a list of shards, one for each job, and pushes the XCom ``run``: ``{manifest, model_id, rows}``, the last of
    which are the work items whose rows are brought in without a job. With the param ``dry_run`` it takes nothing.

    Args:
        file: the pipeline's file.
        pipeline: its name there.

    Raises:
        AirflowFailException: something a person has to mend; nothing was paid.
        RetriableError: a server was away.
    """

    ui_color = "#e8f0fe"

    def execute(self, context: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - Airflow's context
        """Look, check, hand out."""
        from opensearch_batch.core.data_prepper.compiled_pipeline import now

        with errors_end_the_task():
            return self._scan(self.compiled(), now(), context)

    def _scan(self, compiled: Any, at: Any, context: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - a road, a time, Airflow's context
        from opensearch_batch.core.data_prepper.scan_prepare import Scan, ScanManifest

        dry_run, force = bool(context["params"].get("dry_run")), forced(context)
        store, key = self.store(), run_key_of(context)
        self._refuse_over(compiled, store, context)
        scan = Scan(
            compiled,
            store,
            run=context["dag_run"].run_id,
            at=at,
            done_for=self._checked(compiled, self.work_items(compiled, key, at)),
            is_over=run_is_over(context),
        )
        work_items, counts = scan.plan(force=force, writes=not dry_run)
        self.log.info("%s", counts)
        if dry_run:
            for work_item in work_items:
                self.log.info(
                    "dry run: %s %s: %d objects, %d bytes",
                    work_item.kind,
                    work_item.id,
                    len(work_item.objects),
                    work_item.size_bytes,
                )
            context["ti"].xcom_push(key="run", value=NOTHING)
            return []
        shards, ended_badly, model_id = list[Shard](), list[str](), ""
        if any(work_item.kind == "job" for work_item in work_items):
            model_id = compiled.ml.model_id
            shards, ended_badly = scan.shards(work_items, self._job_keys(compiled), force=force)
        rows, jobs = (
            [work_item.id for work_item in work_items if work_item.kind == "data"],
            {shard.id for shard in shards},
        )
        work_items = [work_item for work_item in work_items if work_item.kind == "data" or work_item.id in jobs]
        refuse_many(max(len(shards), len(rows)), "the scan", "tasks", "max_batch_size of ml_inference")
        for job in ended_badly:
            self.log.warning(
                "%s: the job of these inputs ended badly; clear batch_predict of its run to pay again", job
            )
        manifest = ScanManifest(compiled.pipeline.name, key, at, counts, work_items, shards, model_id, ended_badly)
        where = compiled.work.manifest(key)
        save(store, where, manifest)
        context["ti"].xcom_push(key="run", value={"manifest": where, "model_id": model_id, "rows": rows})
        self.log.info("%d jobs, %d work items of rows; manifest %s", len(shards), len(rows), where)
        return [msgspec.to_builtins(shard) for shard in shards]

    def _refuse_over(self, compiled: Any, store: Any, context: Any) -> None:  # noqa: ANN401 - as above
        """Skip a scan beyond `scheduling.count`; one that a person starts is always done."""
        from opensearch_batch.core.data_prepper.scan_state import ScanStateFile

        scheduling = compiled.source.scheduling
        most = scheduling.count if scheduling is not None else None
        if most is None or context["dag_run"].run_type == "manual":
            return
        scans = ScanStateFile(store, compiled.work).known().scans
        if scans >= most:
            context["ti"].xcom_push(key="run", value=NOTHING)
            raise AirflowSkipException(f"{scans} scans are done, which is scheduling.count; pause the pipeline")

    def _checked(self, compiled: CompiledPipeline, ingest: WorkItemIngest) -> str:
        """Check the indexes that are there; name what is done to work items with them."""
        from opensearch_batch.core.ingest.event_documents import refuse_plain_vectors

        indexes = ingest.indexes(ingest.at)
        for index in indexes:
            if index is not None:
                refuse_plain_vectors(index, compiled.prediction_fields())
        return ingest.done_for(indexes)

    def _job_keys(self, compiled: Any) -> Callable[[str], str]:  # noqa: ANN401 - as above
        from opensearch_batch.core.jobs.contract import job_keys
        from opensearch_batch.services.registry import adapter_of

        model = self.hook(MODEL).ml.model(compiled.ml.model_id)
        return job_keys(adapter_of(compiled.ml.service_name), model.parameters)


class OpenSearchScannedRowsOperator(BaseOperator):
    """Return the ids of the work items that need no job: Airflow maps only over the result of a task."""

    ui_color = "#e8f0fe"

    def execute(self, context: Any) -> list[str]:  # noqa: ANN401 - Airflow's context
        """Pass them on."""
        run = context["ti"].xcom_pull(task_ids="prepare", key="run")
        return list(run["rows"]) if run else []
