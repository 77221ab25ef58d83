"""Links that the Airflow UI shows on a task; the operator stores their URLs in attributes while it runs."""

from __future__ import annotations

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey


class _Link(BaseOperatorLink):
    """Base of the links: the URL is an attribute of the operator, empty until it is known."""

    name = ""
    attribute = ""

    @property
    def xcom_key(self) -> str:
        return self.attribute.replace("_url", "_link")

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        return getattr(operator, self.attribute, None) or ""


class MLTaskLink(_Link):
    """The batch job in ML Commons: ``GET /_plugins/_ml/tasks/<task_id>``."""

    name = "ML Commons task"
    attribute = "ml_task_url"


class IndexLink(_Link):
    """The first documents of the index."""

    name = "Index"
    attribute = "index_url"


class DeadLettersLink(_Link):
    """The summary of the dead letters as text: in the AWS console, or at an S3-compatible store."""

    name = "Dead letters"
    attribute = "dead_letters_url"
