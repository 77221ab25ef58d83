"""publish: tells Airflow that an index has news, for the DAGs that follow it; skipped where nothing was written."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException


class OpenSearchPublishOperator(BaseOperator):
    """Update the assets it has as outlets, the index among them.

    Args:
        index: the index that was written; another than that of the outlets, as the form may name, is nobody's news.
        reconcile: the task id of the stage before, whose XCom counts what was written.
    """

    template_fields = ("index",)
    ui_color = "#e6f4ea"

    def __init__(self, *, index: str, reconcile: str = "reconcile", **kwargs: Any) -> None:  # noqa: ANN401 - BaseOperator's own arguments
        super().__init__(**kwargs)
        self.index = index
        self.reconcile = reconcile

    def execute(self, context: Any) -> None:  # noqa: ANN401 - Airflow's context
        """Be a success, or be skipped."""
        counts = context["ti"].xcom_pull(task_ids=self.reconcile)["counts"]
        if not counts["indexed"]:
            raise AirflowSkipException("nothing was written, so nobody needs to look")
        if not any(asset.uri.endswith(f"/{self.index}") for asset in self.outlets):
            raise AirflowSkipException(f"index {self.index} is not the pipeline's own")
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"indexed": counts["indexed"]}
