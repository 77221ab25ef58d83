"""Of two runs that wait for one job, on the real scheduler: who ends one wait does not end the other's job."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local_stack.airflow_api import AirflowAPI
from tests.faults.test_batch_jobs import Run
from tests.lab import Lab
from tests.waiting import eventually


@pytest.fixture
def two(lab: Lab, airflow: AirflowAPI) -> Iterator[tuple[Run, Run]]:
    """Two runs over the same documents, both waiting for the one job."""
    for bucket in ("documents", "opensearch-batch"):
        lab.s3.create_bucket(Bucket=bucket)
    first, second = Run(lab, airflow), Run(lab, airflow)
    second.folder = first.folder
    lab.fault(fault="delay", times=1, seconds=3600)
    for number, run in enumerate((first, second), 1):
        run.start()
        run.until("poll", "deferred")
        eventually(lambda run=run: "starting" in run.log("poll"), "the wait")  # type: ignore[misc] # bound at once
        assert waiters(run) == number
    yield first, second
    lab.no_faults()


def waiters(run: Run) -> int:
    """Count who is recorded to wait for the run's job."""
    folder = run.airflow.xcom(run.task("batch_predict"))[0]["job"]
    return len(list(run.lab.objects.list(f"{folder}/waiters/")))


@pytest.mark.slow
def test_the_job_is_cancelled_when_the_last_wait_is_ended(two: tuple[Run, Run]) -> None:
    """The first one's log names who still waits."""
    first, second = two
    first.mark("poll", "failed")
    eventually(lambda: waiters(second) == 1, "the waiter that left")
    eventually(lambda: "continues, because other runs wait for it" in first.log("poll"), "the log")
    assert f"{second.run_id} poll[0]" in first.log("poll")
    assert (first.job_status(), first.record().get("end")) == ("InProgress", None)
    assert second.task("poll")["state"] == "deferred"
    second.mark("poll", "failed")
    eventually(lambda: second.job_status() in {"Stopping", "Stopped"}, "the cancelled job")
    assert eventually(lambda: second.record().get("end"), "the recorded end")["state"] == "CANCELLED"
    assert (first.jobs(), waiters(second)) == (1, 0)
