"""What becomes of a batch job when the service or a person interferes, on the real scheduler and triggerer."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any, TypeVar

import pytest

from include.local_stack.airflow_api import AirflowAPI
from include.local_stack.settings import REPOSITORY
from tests.lab import Lab
from tests.stored import content, dead_letters
from tests.waiting import WAIT_S, eventually

DAG_ID = "example_by_hand"
T = TypeVar("T")


class Run:
    """One run of the example by hand over documents of its own, so that its job is new."""

    def __init__(self, lab: Lab, airflow: AirflowAPI, *lines: bytes) -> None:
        self.lab, self.airflow = lab, airflow
        self.dag_id = DAG_ID
        self.folder = f"s3://documents/{uuid.uuid4().hex}/"
        # A text of its own: the prediction for another run's text would be in the store.
        name = uuid.uuid4().hex
        self.put(*(lines or (json.dumps({"_id": name, "text": f"a fish {name}"}).encode(),)))
        self.jobs_before = lab.jobs()
        self.run_id = ""

    def put(self, *lines: bytes) -> None:
        """Write the source."""
        self.lab.objects.write(f"{self.folder}a.jsonl", b"\n".join(lines))

    def start(self, **conf: Any) -> None:
        """Trigger the DAG."""
        self.airflow.wait_for_dag(self.dag_id)
        self.run_id = self.airflow.trigger(self.dag_id, {"source": self.folder, "max_dead_letters": "99%", **conf})

    def began_two_days_ago(self) -> None:
        """Move the run's start in Airflow's database, so that its timeout is over now."""
        database = self.lab.stack.home / "airflow" / "airflow.db"
        with closing(sqlite3.connect(database, timeout=WAIT_S)) as connection, connection:
            moved = connection.execute(
                "UPDATE dag_run SET start_date = datetime('now', '-2 days') WHERE run_id = ?", (self.run_id,)
            )
        assert moved.rowcount == 1

    def end(self) -> str:
        """Wait for the run's end."""
        return self.airflow.wait(self.dag_id, self.run_id, wait_s=WAIT_S)

    def task(self, stage: str) -> dict[str, Any]:
        """Return the one task instance of a stage."""
        return next(task for task in self.airflow.tasks(self.dag_id, self.run_id) if task["task_id"] == stage)

    def until(self, stage: str, state: str) -> dict[str, Any]:
        """Wait for a task's state."""
        return eventually(lambda: found if (found := self.task(stage))["state"] == state else None, f"{stage} {state}")

    def mark(self, stage: str, state: str) -> None:
        """Mark a task by hand."""
        path = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{stage}"
        self.airflow.call("PATCH", path, {"new_state": state}, map_index=0)

    def clear(self, stage: str, *, downstream: bool = True) -> None:
        """Clear a task by hand."""
        body = {
            "dry_run": False,
            "dag_run_id": self.run_id,
            "task_ids": [[stage, 0]],
            "only_failed": False,
            "include_downstream": downstream,
        }
        self.airflow.call("POST", f"dags/{self.dag_id}/clearTaskInstances", body)

    def record(self) -> dict[str, Any]:
        """Return the record of the run's job."""
        folder = self.airflow.xcom(self.task("batch_predict"))[0]["job"]
        found: dict[str, Any] = json.loads(content(self.lab.objects, f"{folder}/job.json"))
        return found

    def job_status(self) -> str:
        """Ask SageMaker for the job's status."""
        found = self.lab.sagemaker.describe_transform_job(TransformJobName=self.record()["name"])
        return str(found["TransformJobStatus"])

    def jobs(self) -> int:
        """Count the jobs that SageMaker accepted since the run was made."""
        return self.lab.jobs() - self.jobs_before

    def log(self, stage: str) -> str:
        """Return a task's log."""
        return self.airflow.log(self.task(stage))


@pytest.fixture
def run(lab: Lab, airflow: AirflowAPI) -> Iterator[Run]:
    """A run that was not started yet."""
    for bucket in ("documents", "opensearch-batch"):
        lab.s3.create_bucket(Bucket=bucket)
    yield Run(lab, airflow)
    lab.no_faults()


@pytest.mark.slow
def test_a_failed_job_is_paid_again_only_after_a_clear(run: Run) -> None:
    """The reason stands in the log of poll; clearing poll pays nothing, clearing batch_predict pays one job."""
    run.lab.fault(fault="fail", times=1)
    run.start()
    assert run.end() == "failed"
    assert "ended FAILED" in run.log("poll")
    assert "clear batch_predict to submit (and pay for) a new job" in run.log("poll")
    run.clear("poll")
    run.until("poll", "failed")
    assert run.jobs() == 1
    eventually(lambda: run.end() == "failed", "the end of the run")
    run.clear("batch_predict")
    assert run.end() == "success"
    record = run.record()
    assert (run.jobs(), record["submission"], record["end"]["state"]) == (2, 2, "COMPLETED")


@pytest.mark.slow
@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_poll_cancels_the_job(run: Run, state: str) -> None:
    """Whoever ends the wait by hand does not want the predictions; ingest does not invent any."""
    run.lab.fault(fault="delay", times=1, seconds=3600)
    run.start()
    run.until("poll", "deferred")
    eventually(lambda: "starting" in run.log("poll"), "the trigger's start")
    run.mark("poll", state)
    eventually(lambda: run.job_status() in {"Stopping", "Stopped"}, "the cancelled job")
    end = eventually(lambda: run.record().get("end"), "the recorded end")
    assert (end["state"], end["reason"]) == ("CANCELLED", f"cancelled, because the Airflow task was marked {state}")
    assert run.end() == "failed"
    assert run.jobs() == 1


@pytest.mark.slow
def test_a_runs_timeout_cancels_the_job(run: Run) -> None:
    """Airflow skips what has not ended when a run takes longer than its DAG allows; nobody waits for the job then."""
    run.dag_id = "with_a_timeout"
    text = (REPOSITORY / "dags" / f"{DAG_ID}.py").read_text()
    for old, new in {
        f'dag_id="{DAG_ID}",': f'dag_id="{run.dag_id}", dagrun_timeout=timedelta(days=1),',
        "Path(__file__).resolve().parent.parent": f"Path({str(REPOSITORY)!r})",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (run.lab.stack.home / "airflow" / "dags" / f"{run.dag_id}.py").write_text(text)
    run.lab.fault(fault="delay", times=1, seconds=3600)
    run.start()
    run.until("poll", "deferred")
    assert run.job_status() == "InProgress"
    eventually(lambda: "starting" in run.log("poll"), "the trigger's start")
    run.began_two_days_ago()
    eventually(lambda: run.job_status() in {"Stopping", "Stopped"}, "the cancelled job")
    end = eventually(lambda: run.record().get("end"), "the recorded end")
    assert (end["state"], end["reason"]) == ("CANCELLED", "cancelled, because the Airflow task was marked skipped")
    assert run.end() == "failed"
    assert (run.task("poll")["state"], run.jobs()) == ("skipped", 1)


@pytest.mark.slow
def test_clearing_poll_reattaches_to_the_running_job(run: Run) -> None:
    """Airflow calls on_kill for a clear as for a mark; the job runs on all the same."""
    run.lab.fault(fault="delay", times=1, seconds=3600)
    run.start()
    run.until("poll", "deferred")
    eventually(lambda: "starting" in run.log("poll"), "the trigger's start")
    run.clear("poll")
    eventually(lambda: run.task("poll")["try_number"] == 2, "the second try")
    run.until("poll", "deferred")
    assert run.job_status() == "InProgress"
    run.lab.end_delays()
    assert run.end() == "success"
    assert (run.jobs(), run.record()["end"]["state"], run.task("poll")["try_number"]) == (1, "COMPLETED", 2)


@pytest.mark.slow
def test_throttling_is_waited_for_and_pays_once(run: Run) -> None:
    """SageMaker says not now, twice; the task waits in the triggerer, and no retry is used up."""
    run.lab.fault(fault="throttle", times=2, operation="CreateTransformJob")
    run.start()
    assert run.end() == "success"
    assert (run.jobs(), run.task("batch_predict")["try_number"]) == (1, 1)
    assert "not yet submitted" in run.log("batch_predict")


@pytest.mark.slow
def test_bad_lines_are_dead_letters_and_the_rest_is_indexed(run: Run) -> None:
    """A line that is no JSON and one without text do not reach the service."""
    good = [uuid.uuid4().hex for _ in range(2)]
    lines = [json.dumps({"_id": each, "text": f"a bird {each}"}).encode() for each in good]
    run.put(b"{oops", b'{"_id":"1"}', *lines)
    run.start()
    assert run.end() == "success"
    manifest = run.airflow.xcom(run.task("prepare"), "run")["manifest"]
    account = json.loads(content(run.lab.objects, manifest))
    counts = [account["counts"][name] for name in ("read", "records", "dead_letters", "blank", "paid")]
    assert counts == [4, 2, 2, 0, 2]
    letters = dead_letters(run.lab.objects, account["dead_letters"])
    assert [letter.line for letter in letters] == [1, 2]
    assert all(run.lab.node("GET", f"passages-by-hand/_doc/{each}")["found"] for each in good)


def test_a_missing_source_fails_at_once_and_pays_nothing(run: Run) -> None:
    """The log of prepare names the place and the remedy; no retry is tried."""
    run.folder = "s3://no-such-bucket/in/"
    run.start()
    assert run.end() == "failed"
    assert "there is no bucket 'no-such-bucket'" in run.log("prepare")
    assert (run.jobs(), run.task("prepare")["try_number"]) == (0, 1)


def test_no_secret_reaches_a_log_an_xcom_or_a_rendered_template(run: Run) -> None:
    """The key that ML Commons and S3 were given is nowhere in what Airflow keeps of a run."""
    run.start()
    assert run.end() == "success"
    secret = run.lab.stack.credentials.secret_key
    for task in run.airflow.tasks(DAG_ID, run.run_id):
        path = f"dags/{DAG_ID}/dagRuns/{run.run_id}/taskInstances/{task['task_id']}"
        entries = run.airflow.call("GET", f"{path}/xcomEntries", map_index=task["map_index"])["xcom_entries"]
        values = [json.dumps(run.airflow.xcom(task, entry["key"])) for entry in entries]
        # A task that was skipped before it started has no log.
        log = run.airflow.log(task) if task["try_number"] else ""
        kept = [log, json.dumps(task), *values]
        assert not any(secret in text for text in kept), task["task_id"]
    logs = (run.lab.stack.home / "logs").glob("*.log")
    assert not [log.name for log in logs if secret in log.read_text(errors="replace")]
