"""Stage repair: submits the records without a prediction again, in one smaller job a run, and waits without a worker.

Records that still have none become dead letters of `ingest_repaired`, with the service's reason. The task starts in the
triggerer, so that no process starts for a run in which every record has its prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import StartTriggerArgs

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.job_records import bad_end_message
from opensearch_batch.core.runs.repair import Repair
from opensearch_batch.core.storage.json_document import load_manifest
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import REPAIR_AT_MOST
from opensearch_batch.core.types.job import BAD_ENDS
from opensearch_batch.core.types.manifest import Manifest, Shard, ShardGroup
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.operators.base import layout_of, run_key_of, run_template, translate_errors
from opensearch_batch.operators.submission import JobOperator
from opensearch_batch.services.registry import adapter_of
from opensearch_batch.triggers.job_wait import SubmittedJob
from opensearch_batch.triggers.ml_task import SHARED_ARGUMENTS
from opensearch_batch.triggers.repair import UNANSWERED_TRIGGER, RepairTrigger

CLEAR_REPAIR = "its records become dead letters; clear repair to submit (and pay for) a new job"


class OpenSearchRepairOperator(JobOperator):
    """Submit the records of a run for which the service returned no prediction once more.

    Returns a list of one group of one shard, which `ingest_repaired` writes. The task is skipped if every record has
    its prediction. If the job does not succeed, a clear of this task submits another one.

    Args:
        repair_at_most: the share of the records that the run paid for, such as ``20%``, that may be without a
            prediction; with more, the task fails with the most common reasons, and submits nothing.
        prepare: the task id of `prepare`; its XCom ``run`` names the manifest.

    Raises:
        AirflowFailException: too many records have no prediction, or an ingest has no report.
        RetriableError: a server did not respond; the retry finds what was submitted.
    """

    template_fields = ("manifest", *JobOperator.template_fields)
    start_from_trigger = True
    ui_color = "#fce8e6"

    def __init__(
        self,
        *,
        repair_at_most: str = REPAIR_AT_MOST,
        prepare: str = "prepare",
        **kwargs: Any,  # noqa: ANN401 - the arguments of JobOperator
    ) -> None:
        super().__init__(**kwargs)
        self.repair_at_most = repair_at_most
        self.manifest = run_template("manifest", prepare)
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=UNANSWERED_TRIGGER,
            trigger_kwargs={"manifest": self.manifest, "aws_conn_id": self.aws_conn_id},
            next_method="execute_complete",
        )

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Repair at once; only called if a task cannot start from its trigger, as in ``dag.test``."""
        if not self.manifest:
            raise AirflowSkipException("prepare found nothing to do")
        return self.execute_complete(context, {})

    @translate_errors()
    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Find the records, submit their job, and wait for its end; also called after each wait."""
        layout, store = layout_of(self.work_prefix, context), object_storage(self.aws_conn_id)
        manifest = load_manifest(store, layout.manifest(run_key_of(context)), Manifest)
        repair = Repair(store, layout, manifest, adapter_of(self.service), self.repair_at_most)
        shard = repair.shard()
        if shard is None:
            raise AirflowSkipException("every record has its prediction")
        if not shard.job:
            self.log.info("%d records without a prediction, and no job for them", shard.documents)
        elif not self._ended_well(shard, layout, context, event):
            shard = repair.without_job(shard)
        return [msgspec.to_builtins(ShardGroup.of([shard]))]

    def _ended_well(self, shard: Shard, layout: Layout, context: Context, event: Mapping[str, Any]) -> bool:
        """Submit the job, or find it, and defer until its end; return whether it completed."""
        _, record = self.submit_or_defer(shard, layout, context, since=event.get("since"))
        if record.end is None:
            if event.get("given_up"):
                raise FatalError(f"job {record.name}: no status for too long; clear repair to continue waiting")
            shared = {name: getattr(self, name) for name in SHARED_ARGUMENTS}
            job = SubmittedJob(record.ml_task_id, layout.job(shard.job))
            trigger = RepairTrigger(jobs=msgspec.to_builtins([job]), **shared)
            self.defer(trigger=trigger, method_name="execute_complete")
        if record.end.state in BAD_ENDS:
            self.log.warning("%s", bad_end_message(record, CLEAR_REPAIR))
            return False
        return True
