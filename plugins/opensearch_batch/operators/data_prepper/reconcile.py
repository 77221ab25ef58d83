"""reconcile of a Data Prepper pipeline: adds up, tells what is unrouted or a dead letter, deletes what is done."""

from __future__ import annotations

from typing import Any

import msgspec
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from opensearch_batch.core.pipeline.spec import Alerts
from opensearch_batch.core.storage.manifests import save
from opensearch_batch.hooks.file_connections import MODEL
from opensearch_batch.notifications.alerts import News, tell
from opensearch_batch.operators.base import errors_end_the_task, run_key_of
from opensearch_batch.operators.data_prepper.base import DataPrepperOperator


class OpenSearchScanReconcileOperator(DataPrepperOperator):
    """Account for a run, whatever became of its work items. Skipped where the scan found nothing to do.

    Returns ``{counts: {read, indexed, unchanged, dead_letters, unrouted, dropped}, dead_letters}``.

    Args:
        file: the pipeline's file.
        pipeline: its name there.
        alerts: who is told of dead letters, of rows that no sink takes, and of outputs that are gone.
        prepare: the task id of that stage.

    Raises:
        AirflowFailException: a work item is not done; the message says which and why.
        RetriableError: a server was away.
    """

    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        alerts: Alerts | None = None,
        prepare: str = "prepare",
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.alerts = alerts or Alerts()
        self.prepare = prepare

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's context
        """Add up, tell, delete."""
        from opensearch_batch.core.data_prepper.scan_account import account_of, delete_read
        from opensearch_batch.core.data_prepper.scan_prepare import load_scan

        prepared = context["ti"].xcom_pull(task_ids=self.prepare, key="run")
        if prepared is None:
            # It runs whatever became of the others, and would hide their failure.
            raise AirflowFailException("prepare failed; its log says why")
        if not prepared["manifest"]:
            raise AirflowSkipException("prepare handed out nothing")
        with errors_end_the_task():
            compiled, store = self.compiled(), self.store()
            manifest = load_scan(store, prepared["manifest"])
            account = account_of(store, compiled.work, manifest, sinks=len(compiled.pipeline.sinks))
            save(store, compiled.work.account(run_key_of(context)), account)
            self._tell(account, context)
            self._copy_failures(compiled, account, manifest)
            if compiled.source.delete_s3_objects_on_read:
                self.log.info("deleted %d objects that are done", delete_read(store, compiled.work, manifest))
        if account.undone:
            reasons = "; ".join(sorted({each.reason for each in account.undone}))
            raise AirflowFailException(
                f"{len(account.undone)} of {account.work_items} work items are not done: {reasons}"
            )
        return {"counts": msgspec.to_builtins(account.counts), "dead_letters": account.dead_letters}

    def _copy_failures(self, compiled: Any, account: Any, manifest: Any) -> None:  # noqa: ANN401 - core's values
        """Write the inputs of jobs that failed where `dlq` of ml_inference says."""
        from opensearch_batch.core.data_prepper.dlq_export import write_failed_inputs

        if compiled.ml is None or compiled.ml.dlq is None:
            return
        for each in account.undone:
            if each.failed:
                write_failed_inputs(
                    self.store(MODEL, "dlq"),
                    compiled.ml.dlq,
                    each.work_item.objects,
                    pipeline=self.pipeline,
                    reason=each.reason,
                    at=manifest.at,
                )

    def _tell(self, account: Any, context: Any) -> None:  # noqa: ANN401 - an account, Airflow's context
        self.log.info("%s; objects: %s", account.counts, account.objects)
        counts, run = account.counts, context["dag_run"]
        if counts.unrouted:
            all_of = "all of them, so the pipeline writes nothing" if account.all_unrouted else f"of {counts.read}"
            text = f"{counts.unrouted} rows unrouted, {all_of}: no sink takes them; mend routes, or route _default"
            self.log.warning("%s", text)
            tell(self.alerts, News(run.dag_id, run.run_id, "unrouted", text), self.log)
        if account.gone:
            text = f"{account.gone} outputs of jobs are gone and not read anew; what is in the index stays as it was"
            self.log.warning("%s", text)
            tell(self.alerts, News(run.dag_id, run.run_id, "gone", text), self.log)
        if counts.dead_letters:
            text = f"{counts.dead_letters} dead letters of {counts.read} rows: {', '.join(account.dead_letters)}"
            tell(self.alerts, News(run.dag_id, run.run_id, "dead_letters", text), self.log)
