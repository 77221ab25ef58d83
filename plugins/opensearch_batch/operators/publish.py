"""Stage publish: updates the index's asset, which starts DAGs scheduled on it; skipped if nothing was written."""

from __future__ import annotations

from typing import Any

import msgspec
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.runs.outbox import pending_events
from opensearch_batch.core.types.datasets import RunDatasets
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID
from opensearch_batch.operators.base import layout_of, run_end_check, translate_errors
from opensearch_batch.operators.lineage import ReportsLineage


class OpenSearchPublishOperator(ReportsLineage):
    """Update the assets in `outlets`, if this run, or a failed one before it, wrote to the index.

    Args:
        index: the index that was written; no asset is updated if a run's form named an index that is no outlet.
        reconcile: the task id of `reconcile`; its XCom counts what was written, and names the datasets.
        work_prefix: prefix of the outbox, where `ingest` records writes whose asset event is not emitted yet;
            None if there is no outbox.
        aws_conn_id: the object storage of the outbox.

    Raises:
        AirflowFailException: the outbox cannot be read.
        RetriableError: the store did not respond.
    """

    template_fields = ("index", "work_prefix")
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        index: str,
        reconcile: str = "reconcile",
        work_prefix: str | None = None,
        aws_conn_id: str = AWS_CONN_ID,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.index = index
        self.reconcile = reconcile
        self.work_prefix = work_prefix
        self.aws_conn_id = aws_conn_id

    @translate_errors()
    def execute(self, context: Context) -> None:
        """Succeed, so that Airflow updates the assets, or skip."""
        reconciled = context["ti"].xcom_pull(task_ids=self.reconcile)
        written = {name: reconciled["counts"].get(name, 0) for name in ("indexed", "deleted")}
        events = self._events(context)
        if not any(written.values()) and not events:
            raise AirflowSkipException("nothing was written, so no asset is updated")
        self.datasets = msgspec.convert(reconciled.get("datasets", {}), RunDatasets)
        is_outlet = any(asset.uri.endswith(f"/{self.index}") for asset in self.outlets)
        if is_outlet:
            for asset in self.outlets:
                context["outlet_events"][asset].extra = written
        store = object_storage(self.aws_conn_id)
        for uri in events:
            store.delete(uri)
        if not is_outlet:
            raise AirflowSkipException(f"no outlet is the asset of index {self.index}, so no asset is updated")

    def _events(self, context: Context) -> list[str]:
        """Return the outbox entries for the index; entries of another run only if that run has ended."""
        if self.work_prefix is None:
            return []
        run_id, is_over = context["dag_run"].run_id, run_end_check(context)
        return [
            uri
            for uri, event in pending_events(object_storage(self.aws_conn_id), layout_of(self.work_prefix, context))
            if event.index == self.index and (event.run_id == run_id or is_over(event.run_id))
        ]
