"""publish: tells Airflow that an index has news, for the DAGs that follow it; skipped where nothing was written."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.runs.outbox import unpublished
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID
from opensearch_batch.operators.base import errors_end_the_task, run_is_over, work_of


class OpenSearchPublishOperator(BaseOperator):
    """Update the assets it has as outlets, the index among them.

    Args:
        index: the index that was written; another than that of the outlets, as the form may name, is nobody's news.
        reconcile: the task id of the stage before, whose XCom counts what was written.
        work: the same as in `ingest`, whose notes say what else was written: by an attempt that died, or a run that
            failed, before it could be told. None where no notes are left.
        aws_conn_id: where they lie.

    Raises:
        AirflowFailException: the notes cannot be read.
        RetriableError: the store was away.
    """

    template_fields = ("index", "work")
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        index: str,
        reconcile: str = "reconcile",
        work: str | None = None,
        aws_conn_id: str = AWS_CONN_ID,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.index = index
        self.reconcile = reconcile
        self.work = work
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Any) -> None:  # noqa: ANN401 - Airflow's context
        """Be a success, or be skipped."""
        counts = context["ti"].xcom_pull(task_ids=self.reconcile)["counts"]
        with errors_end_the_task():
            notes = self._notes(context)
        if not counts["indexed"] and not notes:
            raise AirflowSkipException("nothing was written, so nobody needs to look")
        is_own = any(asset.uri.endswith(f"/{self.index}") for asset in self.outlets)
        if is_own:
            for asset in self.outlets:
                context["outlet_events"][asset].extra = {"indexed": counts["indexed"]}
        with errors_end_the_task():
            for uri in notes:
                object_storage(self.aws_conn_id).delete(uri)
        if not is_own:
            raise AirflowSkipException(f"index {self.index} is not the pipeline's own")

    def _notes(self, context: Any) -> list[str]:  # noqa: ANN401 - as above
        """Return the notes of what was written to the index; a run that goes on tells its own news."""
        if self.work is None:
            return []
        own, is_over = context["dag_run"].run_id, run_is_over(context)
        return [
            uri
            for uri, note in unpublished(object_storage(self.aws_conn_id), work_of(self.work, context))
            if note.index == self.index and (note.run_id == own or is_over(note.run_id))
        ]
