"""Links that Airflow's UI shows on a task; each is made in the worker from what the operator knows by then."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink


class _Link(BaseOperatorLink):
    """A link whose address the operator keeps in an attribute; empty until it is known."""

    name = ""
    attribute = ""

    @property
    def xcom_key(self) -> str:
        """Return the XCom the link travels in."""
        return self.attribute.replace("_url", "_link")

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002, ANN401 - Airflow's signature
        """Return the address."""
        return getattr(operator, self.attribute, None) or ""


class MLTaskLink(_Link):
    """The batch job as ML Commons sees it: ``GET /_plugins/_ml/tasks/<task_id>``."""

    name = "ML Commons task"
    attribute = "ml_task_url"


class IndexLink(_Link):
    """The first documents of the index."""

    name = "Index"
    attribute = "index_url"


class DeadLettersLink(_Link):
    """Where the dead letters lie: in Amazon's console, or the listing of another store."""

    name = "Dead letters"
    attribute = "dead_letters_url"
