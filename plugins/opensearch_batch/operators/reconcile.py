"""reconcile: adds up what became of all records, tells of dead letters, and removes files whose time has come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.pipeline.spec import Alerts
from opensearch_batch.core.runs.retention import clean_up, note_use
from opensearch_batch.core.runs.run_account import RunAccount, reconcile
from opensearch_batch.core.storage.by_uri import Stores
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.manifests import load_manifest, save
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.hooks.ai_services import client_of, outputs_store
from opensearch_batch.hooks.connections import AWS_CONN_ID
from opensearch_batch.notifications.alerts import News, tell
from opensearch_batch.operators.base import errors_end_the_task, run_key_of, work_of

DAY_S = 86_400.0


class OpenSearchReconcileOperator(BaseOperator):
    """Account for a whole run. Skipped where prepare made no shards.

    Returns ``{counts: {read, indexed, unchanged, dead_letters, shards, unrouted, dropped, superseded},
    dead_letters}``, the latter a list of locations. Inputs, outputs and uploaded files go `retention_days` after the
    last run that used them.

    Args:
        work: the same as in `prepare`.
        retention_days: how long files are kept; None for ever.
        alerts: who is told of dead letters, and of a run whose every record is unrouted.
        prepare: the task id of that stage.
        aws_conn_id: the object storage.
        ai_conn_id: the AI service's key, where files lie there; its usual connection if None.

    Raises:
        AirflowFailException: a record is in no account.
        RetriableError: a server was away.
    """

    template_fields = ("work",)
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        work: str,
        retention_days: int | None = 30,
        alerts: Alerts | None = None,
        prepare: str = "prepare",
        aws_conn_id: str = AWS_CONN_ID,
        ai_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.work = work
        self.retention_days = retention_days
        self.alerts = alerts or Alerts()
        self.prepare = prepare
        self.aws_conn_id = aws_conn_id
        self.ai_conn_id = ai_conn_id

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's context
        """Add up, tell, clean up."""
        prepared = context["ti"].xcom_pull(task_ids=self.prepare, key="run")
        if prepared is None:
            raise AirflowSkipException("prepare made no shards")
        with errors_end_the_task():
            work = work_of(self.work, context)
            store = outputs_store(aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id)
            manifest = load_manifest(store, prepared["manifest"])
            account = reconcile(store, work, manifest)
            save(store, work.account(run_key_of(context)), account)
            self.log.info("%s: %s", account.source, account.counts)
            run = context["dag_run"]
            for event, text in news_of(account):
                tell(self.alerts, News(run.dag_id, run.run_id, event, text), self.log)
            note_use(store, work, manifest, now=time.time(), for_ever=self.retention_days is None)
            if self.retention_days is not None:
                self._clean_up(store, work)
        return {"counts": msgspec.to_builtins(account.counts), "dead_letters": account.dead_letters}

    def _clean_up(self, store: Stores, work: Layout) -> None:
        """Remove what is too old; that it fails today does not make the run a failure."""
        try:
            keep_s = (self.retention_days or 0) * DAY_S
            removed = clean_up(store, work, keep_s=keep_s, now=time.time(), unstage=self._unstage)
        except BatchError as error:
            self.log.warning("files that are too old could not all be removed: %s", error)
            return
        if removed:
            self.log.info("removed the files of %d jobs, last used %s days ago or longer", removed, self.retention_days)

    def _unstage(self, record: JobRecord) -> None:
        if record.staged:
            client = client_of(record.service, aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id)
            client.unstage(record.staged)


def news_of(account: RunAccount) -> Iterator[tuple[str, str]]:
    """Yield what has to be told of a run that ended well: the event and its text."""
    counts = account.counts
    if counts.dead_letters:
        letters = ", ".join(account.dead_letters)
        yield "dead_letters", f"{counts.dead_letters} dead letters of {counts.read} records: {letters}"
    # Some of them are what `when` is for.
    if counts.unrouted and counts.unrouted == counts.read:
        yield "unrouted", f"{counts.unrouted} records unrouted, all of them: ingest.when holds for none; mend it"
