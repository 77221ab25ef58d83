"""Links that Airflow's UI shows on a task; each is made in the worker from what the operator knows by then."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink


class MLTaskLink(BaseOperatorLink):
    """The batch job as ML Commons sees it: ``GET /_plugins/_ml/tasks/<task_id>``."""

    name = "ML Commons task"

    @property
    def xcom_key(self) -> str:
        """Return the XCom the link travels in."""
        return "ml_task_link"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002, ANN401 - Airflow's signature
        """Return the address, empty before the job is submitted."""
        return getattr(operator, "ml_task_url", "")
