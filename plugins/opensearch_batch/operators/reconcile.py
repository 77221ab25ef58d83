"""The `reconcile` stage: adds up the outcomes of all records, commits them, alerts, and removes expired files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.errors import BatchError, FatalError
from opensearch_batch.core.jobs.contract import output_uris
from opensearch_batch.core.ledger.commit import commit
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.pipeline.spec_parts import Alerts
from opensearch_batch.core.runs.metrics import run_measurements
from opensearch_batch.core.runs.retention import Retention
from opensearch_batch.core.runs.run_account import RunAccount, reconcile, shard_reports, written_shards
from opensearch_batch.core.runs.run_summary import delete_old_summaries, record_end
from opensearch_batch.core.storage.by_uri import Stores
from opensearch_batch.core.storage.dead_letters import SUMMARY, refuse_dead_letters
from opensearch_batch.core.storage.json_document import load_manifest
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import ALL, MAX_DEAD_LETTERS
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Manifest, ShardGroup
from opensearch_batch.hooks.ai_services import client_of, outputs_store
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.hooks.file_conn_ids import MODEL
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.links.opensearch import DeadLettersLink, IndexLink
from opensearch_batch.notifications.alerts import Alert, send
from opensearch_batch.operators.base import layout_of, translate_errors
from opensearch_batch.operators.lineage import ReportsLineage
from opensearch_batch.operators.log_tables import log_counts
from opensearch_batch.operators.metrics import emit
from opensearch_batch.operators.scan import ScanOperator
from opensearch_batch.services.registry import adapter_of

if TYPE_CHECKING:
    from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
    from opensearch_batch.core.data_prepper.scan_account import ScanAccount
    from opensearch_batch.core.data_prepper.scan_prepare import ScanManifest

DAY_S = 86_400.0


class ReconcileOperator(ReportsLineage):
    """Base of the `reconcile` stages: writes the account of a run and sends its alerts.

    Args:
        alerts: the recipients of alerts about dead letters, unrouted rows, and deleted outputs.
        prepare: the task id of `prepare`; its XCom ``run`` names the manifest.
        max_dead_letters: the run fails if its dead letters are all records, or exceed both this share of them and the
            smaller of 10 and half of them.
    """

    operator_extra_links = (IndexLink(), DeadLettersLink())
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        alerts: Alerts | None = None,
        prepare: str = "prepare",
        max_dead_letters: str = MAX_DEAD_LETTERS,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.alerts = alerts or Alerts()
        self.prepare = prepare
        self.max_dead_letters = max_dead_letters

    @translate_errors()
    def execute(self, context: Context) -> dict[str, Any]:
        account = self._reconcile(context["ti"].xcom_pull(task_ids=self.prepare, key="run"), context)
        return {
            "counts": msgspec.to_builtins(account.counts),
            "dead_letters": account.dead_letters,
            "datasets": msgspec.to_builtins(self.datasets),
        }

    def _reconcile(self, prepared: dict[str, Any] | None, context: Context) -> RunAccount:
        """Implement in a subclass: return the account of a run, given the XCom ``run`` of `prepare`."""
        raise NotImplementedError

    def _report(
        self, account: RunAccount, manifest: Manifest | ScanManifest, store: S3Objects, layout: Layout, context: Context
    ) -> None:
        """Write the account and the summary, log the counts, link the first dead letters, and send the alerts."""
        record_end(store, layout, manifest, account)
        log_counts(self.log, account.pipeline, account.counts, store, *account.dead_letters)
        if account.dead_letters:
            self.dead_letters_url = store.browse_url(f"{account.dead_letters[0].rstrip('/')}/{SUMMARY}")
        run = context["dag_run"]
        for event, text in account.alerts():
            self.log.warning("%s", text)
            send(self.alerts, Alert(run.dag_id, run.run_id, event, text))

    def _refuse_dead_letters(self, account: RunAccount, store: Objects, max_share: str | None) -> None:
        """Fail a run with too many dead letters; called last, so that a replay is enough to complete the run."""
        counts, max_share = account.counts, max_share or self.max_dead_letters
        refuse_dead_letters(
            store, counts.dead_letters, read=counts.read, max_share=max_share, locations=account.dead_letters
        )


class OpenSearchReconcileOperator(ReconcileOperator):
    """Account for a whole run, and commit it to the record ledger; skipped if `prepare` found nothing to do.

    Returns ``{counts, dead_letters, datasets}``; `counts` are those of `ShardRunCounts`, `dead_letters` is a list of
    locations, `datasets` are those of `RunDatasets`.
    Removes files of jobs and runs, and answers that no ledger references any more, after `retention_days`.

    Args:
        work_prefix: the same as in `prepare`.
        index: the index that `ingest` writes, for the link to it; no link if empty.
        opensearch_conn_id: the connection to the cluster of the index.
        retention_days: how many days unneeded files and answers are kept; None keeps them forever.
        repair: the task id of `repair`; its XCom contains the shards of `ingest_repaired`, if there are any.
        aws_conn_id: the connection to the object storage.
        ai_conn_id: the connection with the AI service's key; the service's default connection if None.

    Raises:
        AirflowFailException: a record is not accounted for, another run has claimed the scope, or too many records are
            dead letters.
        RetriableError: a server did not respond; a retry is safe.
    """

    template_fields = ("work_prefix", "index", "max_dead_letters")

    def __init__(
        self,
        *,
        work_prefix: str,
        index: str = "",
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        retention_days: int | None = 30,
        repair: str = "repair",
        aws_conn_id: str = AWS_CONN_ID,
        ai_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - the arguments of ReconcileOperator
    ) -> None:
        super().__init__(**kwargs)
        self.work_prefix = work_prefix
        self.index = index
        self.opensearch_conn_id = opensearch_conn_id
        self.retention_days = retention_days
        self.repair = repair
        self.aws_conn_id = aws_conn_id
        self.ai_conn_id = ai_conn_id

    def _reconcile(self, prepared: dict[str, Any] | None, context: Context) -> RunAccount:
        if prepared is None:
            raise AirflowSkipException("prepare found nothing to do")
        layout = layout_of(self.work_prefix, context)
        store = outputs_store(aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id)
        manifest = load_manifest(store, prepared["manifest"], Manifest)
        self.datasets = manifest.datasets
        groups = msgspec.convert(context["ti"].xcom_pull(task_ids=self.repair) or [], list[ShardGroup])
        repaired = [shard for group in groups for shard in group.shards]
        shards = written_shards(store, layout, manifest, repaired)
        account = reconcile(store, layout, manifest, shards, now=time.time())
        reports = shard_reports(store, layout, manifest, shards)
        verdicts = (verdict for _, report in reports for verdict in report.verdicts.exceptions)
        head = commit(store, layout, manifest, verdicts)
        if self.index:
            self.index_url = OpenSearchMLHook(self.opensearch_conn_id).cluster.search_url(self.index)
        self._report(account, manifest, object_storage(self.aws_conn_id), layout, context)
        emit(run_measurements(account, dead_in_prepare=manifest.counts.dead_letters), context, manifest.service)
        if head is not None:
            self.log.info("committed: %d documents of %d objects", head.documents, len(head.objects))
        self._clean_up(store, layout, manifest)
        # A replay fails only if all of its records fail: each record that it writes is progress.
        self._refuse_dead_letters(account, store, ALL if layout.is_prepare_dead_letters(manifest.source) else None)
        return account

    def _clean_up(self, store: Stores, layout: Layout, manifest: Manifest) -> None:
        """Remove expired files; an error is logged and does not fail the run."""
        retention = Retention(
            store,
            layout,
            PredictionStore(store, manifest.predictions),
            outputs=lambda record, response: output_uris(adapter_of(record.service), record, response),
            unstage=self._unstage,
        )
        keep_s = None if self.retention_days is None else self.retention_days * DAY_S
        try:
            removed = retention.run(keep_s, now=time.time())
        except BatchError as error:
            self.log.warning("could not remove all expired files: %s", error)
            return
        if removed:
            self.log.info("removed the files of %d jobs (retention_days: %s)", removed, self.retention_days)

    def _unstage(self, record: JobRecord) -> None:
        if record.staged:
            client = client_of(record.service, aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id)
            client.unstage(record.staged)


class OpenSearchScanReconcileOperator(ScanOperator, ReconcileOperator):
    """Commit the completed work items of a scan run, and account for the run, even if some work items failed.

    The task is skipped if the scan found nothing to do.

    Returns ``{counts, dead_letters, datasets}``; `counts` are those of `RunCounts`.

    Raises:
        AirflowFailException: `prepare` failed, a work item is not done (the message lists the reasons), or too many
            rows are dead letters.
        RetriableError: a server did not respond.
    """

    def _reconcile(self, prepared: dict[str, Any] | None, context: Context) -> ScanAccount:
        from opensearch_batch.core.data_prepper import scan_account
        from opensearch_batch.core.data_prepper.scan_prepare import ScanManifest

        if prepared is None:
            # This stage runs even if earlier stages failed; a skip would hide the failure.
            raise FatalError("prepare failed; see its log")
        if not prepared["manifest"]:
            raise AirflowSkipException("the scan found nothing to do")
        compiled, store = self._compiled(), self._store()
        manifest = load_manifest(store, prepared["manifest"], ScanManifest)
        committed = scan_account.commit(store, compiled.layout, manifest)
        account = scan_account.account_of(store, compiled.layout, manifest, committed, now=time.time())
        self._report(account, manifest, store, compiled.layout, context)
        emit(run_measurements(account, dead_in_prepare=0), context, compiled.service)
        delete_old_summaries(store, compiled.layout, now=time.time())
        self.datasets = self._datasets(compiled, (report.reports for report in committed.done.values()))
        self._export_failed_inputs(compiled, account, manifest)
        if compiled.source.delete_s3_objects_on_read:
            deleted = scan_account.delete_read(store, manifest, committed)
            self.log.info("deleted %d objects of completed work items", deleted)
        if account.unfinished:
            reasons = "; ".join(sorted({unfinished.reason for unfinished in account.unfinished}))
            raise FatalError(f"{len(account.unfinished)} of {account.work_items} work items are not done: {reasons}")
        self._refuse_dead_letters(account, store, compiled.file.settings.max_dead_letters)
        return account

    def _export_failed_inputs(self, compiled: CompiledPipeline, account: ScanAccount, manifest: ScanManifest) -> None:
        """Export the inputs of failed jobs to the `dlq` of ml_inference."""
        from opensearch_batch.core.data_prepper.dlq_export import write_failed_inputs

        if compiled.ml is None or compiled.ml.dlq is None:
            return
        for unfinished in account.unfinished:
            if unfinished.failed:
                write_failed_inputs(
                    self._store(MODEL, "dlq"),
                    compiled.ml.dlq,
                    unfinished.work_item.objects,
                    pipeline=self.pipeline,
                    reason=unfinished.reason,
                    at=manifest.at,
                )
