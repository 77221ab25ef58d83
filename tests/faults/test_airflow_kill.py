"""Scheduler, workers and triggerer are killed and started again: a run goes on, and one job is paid."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from include.local_stack import processes
from include.local_stack.airflow_api import AirflowAPI
from include.local_stack.stack import Stack, StackOptions
from include.local_stack.state import StateFile
from tests.faults.test_batch_jobs import DAG_ID, Run
from tests.lab import Lab
from tests.stored import present
from tests.waiting import WAIT_S

pytestmark = pytest.mark.slow
# Airflow misses a worker after 40 s, and an intent without a record counts as abandoned after 60 s.
WAITING_S = 15


@pytest.fixture
def run(lab: Lab, airflow: AirflowAPI) -> Iterator[Run]:
    """A run that was not started yet."""
    for bucket in ("documents", "opensearch-batch"):
        lab.s3.create_bucket(Bucket=bucket)
    yield Run(lab, airflow)
    lab.no_faults()


def kill(lab: Lab, name: str) -> None:
    """Kill a process of the stack with all its children, and start it again; the scheduler's are the workers."""
    state = present(StateFile(lab.stack.home).read())
    members = processes.members_of_session(state.processes[name])
    for process in members:
        os.kill(process.pid, signal.SIGKILL)
    while any(map(processes.is_alive, members)):
        time.sleep(0.05)
    Stack.up(StackOptions(home=lab.stack.home, free_ports=True, opensearch_version=lab.version))


@pytest.mark.parametrize("name", ["airflow-triggerer", "airflow-scheduler"])
def test_killed_while_the_job_runs(run: Run, lab: Lab, name: str) -> None:
    """The wait goes on."""
    lab.fault(fault="delay", times=1, seconds=WAITING_S)
    run.start()
    run.until("poll", "deferred")
    kill(lab, name)
    assert run.airflow.wait(DAG_ID, run.run_id, wait_s=WAIT_S) == "success"
    assert run.jobs() == 1


@pytest.mark.parametrize("name", ["airflow-triggerer", "airflow-scheduler"])
def test_killed_while_the_service_throttles(run: Run, lab: Lab, name: str) -> None:
    """The submission is made when the service takes it."""
    lab.fault(fault="throttle", times=2, operation="CreateTransformJob")
    run.start()
    run.until("batch_predict", "deferred")
    kill(lab, name)
    assert run.airflow.wait(DAG_ID, run.run_id, wait_s=WAIT_S) == "success"
    assert run.jobs() == 1


@pytest.mark.parametrize("stage", ["prepare", "batch_predict", "ingest"])
def test_workers_killed_at_work(run: Run, lab: Lab, stage: str) -> None:
    """At whatever step of the stage; the retry finds what was done."""
    run.start()
    run.until(stage, "running")
    kill(lab, "airflow-scheduler")
    assert run.airflow.wait(DAG_ID, run.run_id, wait_s=WAIT_S) == "success"
    assert run.jobs() == 1
    assert run.task(stage)["try_number"] == 2
