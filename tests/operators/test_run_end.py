"""Whether another run has ended: its claim may be taken over then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.operators.base import run_end_check


def ends(outcome: str | int | None) -> bool:
    """Whether run `r` counts as ended if Airflow returns a state, or responds with a status or with none."""

    def state(**_: Any) -> str:
        if isinstance(outcome, str):
            return outcome
        raise AirflowRuntimeError(
            ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": outcome, "message": "no"})
        )

    context: Any = {"ti": SimpleNamespace(dag_id="d", get_dagrun_state=state)}
    return run_end_check(context)("r")


@pytest.mark.parametrize(
    ("outcome", "is_over"), [("running", False), ("queued", False), ("success", True), ("failed", True), (404, True)]
)
def test_a_run_is_over_if_it_has_ended_or_was_deleted(outcome: str | int, *, is_over: bool) -> None:
    """Airflow responds with 404 to a run that was deleted."""
    assert ends(outcome) == is_over


@pytest.mark.parametrize("status", [500, 503, None])
def test_a_run_is_not_over_because_airflow_does_not_tell(status: int | None) -> None:
    """Otherwise two runs would hold one claim."""
    with pytest.raises(RetriableError, match=r"^Airflow does not return the state of run r "):
        ends(status)
