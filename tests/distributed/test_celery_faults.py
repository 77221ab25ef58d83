"""Faults of several workers, triggerers and schedulers: nothing is lost, written twice or paid twice.

What dies is started again by its parent, as `make up` has it.
"""

from __future__ import annotations

import signal
import threading
import time

import pytest

from include.local_stack.processes import RunningProcess, is_alive
from include.local_stack.settings import REPOSITORY
from tests.distributed.celery_stack import CeleryStack
from tests.distributed.trial import RECORDS, Trial
from tests.faults.ingestion import BULK
from tests.faults.proxy import Exchange, afterwards, first, passes
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(900)
PREDICT = "POST .*/_batch_predict"
# The request in each stage during which its worker is killed, and whether the server has handled it then.
STAGES = {
    "prepare": ("s3", r"PUT .*/manifest\.json", 1, True),
    "batch_predict": ("node", PREDICT, 2, True),
    "ingest": ("node", BULK, 8, True),
    "repair": ("node", PREDICT, 4, True),
    "reconcile": ("s3", r"PUT .*/run\.json", 1, False),
    "publish": ("s3", "DELETE .*/outbox/", 1, True),
}


def test_work_goes_to_both_workers_which_share_no_folder(stack: CeleryStack) -> None:
    """Four runs at once; their logs are read from S3, and no process of a machine knows another's folders."""
    trial = Trial(stack, "none", *stack.pair(), *stack.pair())
    trial.start()
    trial.end()
    tasks = [task for run in trial.runs for task in stack.airflow.tasks(run.dag_id, run.run_id)]
    assert {task["hostname"] for task in tasks if task["task_id"] in {"prepare", "ingest", "reconcile"}} == {
        "worker-1",
        "worker-2",
    }
    assert "records" in trial.runs[0].log("prepare")
    machines = stack.lab.stack.home / "airflow" / "machines"
    names = ("worker-1", "worker-2", "triggerer-1", "triggerer-2")
    for name in names:
        environment = stack.environment(f"airflow-{name}")
        own = str(machines / name)
        for variable in ("AIRFLOW_HOME", "TMPDIR", "AIRFLOW__CORE__DAGS_FOLDER"):
            assert environment[variable].startswith(own), variable
        for part in environment["PYTHONPATH"].split(":"):
            assert part.startswith(own)
        others = [str(machines / other) for other in names if other != name]
        settings = {key: value for key, value in environment.items() if key.startswith(("AIRFLOW", "PYTHON", "TMP"))}
        assert not [key for key, value in settings.items() if str(REPOSITORY) in value]
        assert not [key for key, value in settings.items() for other in others if other in value]


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_is_killed_in_each_stage(stack: CeleryStack, stage: str) -> None:
    """Another attempt, on any worker, finds what was done."""
    server, request, number, after = STAGES[stage]
    killed: list[str] = []
    trial = Trial(stack, f"kill -9 of the worker in `{stage}`")
    if stage == "repair":
        stack.lab.fault(fault="partial", times=1, every=10)
    getattr(stack, server).on(request, number, stack.kills_sender(killed, after=after))
    trial.start()
    outcome = trial.end(repaired=10 if stage == "repair" else 0)
    assert killed[0] in {"airflow-worker-1", "airflow-worker-2"}
    assert outcome.retries >= 1


def test_the_triggerer_that_waits_is_killed(stack: CeleryStack) -> None:
    """The other one, or the same one again, takes its waits; no job is submitted again and no wait is lost."""
    trial = Trial(stack, "kill -9 of the triggerer that waits", *(stack.pipeline() for _ in range(2)))
    stack.lab.fault(fault="delay", times=6, seconds=3600)
    trial.start()
    trial.until("poll", "deferred")
    waiting = [eventually(lambda name=name: stack.triggerer_of(name), "the triggerer") for name in trial.names]  # type: ignore[misc] # a default
    for name in set(waiting):
        stack.kill(f"airflow-{name}")
    stack.lab.end_delays()
    assert trial.end().retries == 0


def test_the_scheduler_of_a_running_task_is_killed(stack: CeleryStack) -> None:
    """The task goes on, and the other scheduler takes it over."""
    trial = Trial(stack, "kill -9 of the scheduler of a running task")
    killed: list[str] = []

    def kill() -> None:
        killed.append(eventually(lambda: stack.scheduler_of(trial.names[0]), "the scheduler"))
        stack.kill(f"airflow-{killed[0]}")

    stack.node.on(BULK, 4, first(kill))
    trial.start()
    trial.end()
    assert killed


@pytest.mark.parametrize("seconds", [8, 120])
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_is_away(stack: CeleryStack, mode: str, seconds: int) -> None:
    """Whatever ends meanwhile is started again; tasks go on, or are repeated."""
    trial = Trial(stack, f"PostgreSQL away for {seconds} s during `ingest`, stopped {mode}")
    number = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]

    def away() -> None:
        with stack.away("postgres", number):
            time.sleep(seconds)

    stack.node.on(BULK, 4, first(away))
    trial.start()
    trial.end()


def queue_tasks(stack: CeleryStack, trial: Trial) -> None:
    """Stop the workers and start runs, so that their messages are in the broker's queue."""
    for worker in ("airflow-worker-1", "airflow-worker-2"):
        stack.signal(worker, signal.SIGSTOP)
    trial.start()
    # One is with each worker, which has asked for it.
    eventually(lambda: stack.queued() >= len(trial.names) - 2, "queued messages")
    trial.until("prepare", "queued")


def continue_workers(stack: CeleryStack) -> None:
    """Let the workers go on."""
    for worker in ("airflow-worker-1", "airflow-worker-2"):
        stack.signal(worker, signal.SIGCONT)


def test_redis_is_killed_with_messages_in_its_queue(stack: CeleryStack) -> None:
    """They are there when it starts again."""
    trial = Trial(stack, "kill -9 of Redis with 4 tasks queued", *(stack.pipeline() for _ in range(4)))
    queue_tasks(stack, trial)
    stack.kill("redis")
    continue_workers(stack)
    trial.end()


def test_redis_loses_its_queue(stack: CeleryStack) -> None:
    """The tasks are sent again."""
    trial = Trial(stack, "Redis flushed with 4 tasks queued", *(stack.pipeline() for _ in range(4)))
    queue_tasks(stack, trial)
    with stack.redis() as client:
        client.flushall()
    continue_workers(stack)
    trial.end()


def test_redis_is_away_when_a_task_ends(stack: CeleryStack) -> None:
    """The next task is sent as soon as the broker is back; no attempt is used up."""
    trial = Trial(stack, "Redis away for 8 s when `prepare` ends")

    def away() -> None:
        with stack.away("redis", signal.SIGKILL):
            time.sleep(8)

    def begins(exchange: Exchange) -> None:
        threading.Thread(target=away, daemon=True).start()
        eventually(lambda: not stack.programs("redis"), "the end of Redis")
        passes(exchange)

    stack.s3.on(r"PUT .*/manifest\.json", 1, begins)
    trial.start()
    assert trial.end().retries == 0


def test_a_worker_that_was_stopped_goes_on(stack: CeleryStack) -> None:
    """Another attempt has done its work; what it still writes changes nothing."""
    trial = Trial(stack, "SIGSTOP of the worker in `ingest` for 120 s")
    stopped: list[tuple[str, RunningProcess]] = []

    def stop(exchange: Exchange) -> None:
        stopped.append(stack.sender(exchange))
        stack.signal(stopped[0][0], signal.SIGSTOP)
        passes(exchange)

    stack.node.on(BULK, 8, stop)
    trial.start()
    ((name, attempt),) = eventually(lambda: stopped, "the worker")
    time.sleep(120)
    stack.signal(name, signal.SIGCONT)
    eventually(lambda: not is_alive(attempt), "the end of the attempt that was stopped")
    assert trial.end().retries >= 1


def test_two_workers_write_one_index_while_the_node_restarts(stack: CeleryStack) -> None:
    """Both wait for it, and write what it has not confirmed."""
    trial = Trial(stack, "kill -9 of the OpenSearch node while two workers write", *stack.pair())
    stack.node.on(BULK, 9, afterwards(lambda: stack.kill("opensearch")))
    trial.start()
    outcome = trial.end()
    assert outcome.records == 2 * RECORDS
