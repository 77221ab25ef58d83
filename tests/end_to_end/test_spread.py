"""A large source is prepared by several tasks of Airflow, and a small change by `prepare` alone."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.end_to_end.own_pipelines import OwnPipelines, Run, records
from tests.lab import Lab

SPREAD = ("split", "read", "compare", "stage", "reserve")


def states(run: Run) -> dict[str, Counter[str]]:
    """Return the states of the instances of each task."""
    found: dict[str, Counter[str]] = {}
    for task in run.airflow.tasks(run.dag_id, run.run_id):
        found.setdefault(task["task_id"], Counter())[task["state"]] += 1
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_several_tasks_prepare_a_large_source(lab: Lab) -> None:
    """Also when the run is cleared; the tasks that a small change does not need are skipped without a start."""
    own = OwnPipelines(lab)
    name = own.new_name()
    index = name.replace("_", "-")
    # One object that is cut into ranges, and small ones; some texts of the small ones are in the large one, too.
    own.put(f"{name}/large.jsonl", 0, 60)
    for number in range(2):
        lines = [{**each, "_id": f"copy-{each['_id']}"} for each in records(10 * number, 5)]
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        lab.s3.put_object(Bucket=own.documents, Key=f"{name}/small-{number}.jsonl", Body=body)
    spec = own.spec(name, source={"uri": f"s3://{own.documents}/{name}/", "split_bytes": 1_000})
    own.write(name, {**spec, "shard": {"max_records": 25}})
    jobs = lab.jobs()
    own.airflow.wait_for_dag(name)
    run = own.run(name)
    assert run.wait() == "success"
    found = states(run)
    assert (found["read"], found["stage"]) == ({"success": 3}, {"success": 3})
    assert [found[task] for task in ("split", "compare", "reserve")] == [{"success": 1}] * 3
    counts = run.counts()
    assert (counts["read"], counts["indexed"], counts["paid"], counts["shards"]) == (70, 70, 60, 3)
    assert (lab.jobs() - jobs, own.count(index)) == (3, 70)

    own.put(f"{name}/small-0.jsonl", 100, 2)
    again = own.run(name)
    assert again.wait() == "success"
    found = states(again)
    assert [found[task] for task in SPREAD] == [{"skipped": 1}] * len(SPREAD)
    skipped = [task for task in again.airflow.tasks(name, again.run_id) if task["task_id"] in SPREAD]
    assert {task["try_number"] for task in skipped} == {0}
    assert (again.counts()["indexed"], lab.jobs() - jobs) == (2, 4)

    own.airflow.call("POST", f"dags/{name}/dagRuns/{run.run_id}/clear", {"dry_run": False})
    assert run.wait() == "success"
    assert lab.jobs() - jobs == 4
