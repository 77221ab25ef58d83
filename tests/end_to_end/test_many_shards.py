"""More shards than Airflow maps tasks over by default (1,024), in one run."""

from __future__ import annotations

import pytest

from tests.end_to_end.own_pipelines import OwnPipelines
from tests.lab import Lab
from tests.waiting import WAIT_S

SHARDS = 1_100
RECORDS = 2


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(1_800)
def test_more_shards_than_airflow_maps_over(lab: Lab) -> None:
    """Each has its job; the tasks are a few dozen, and no setting of Airflow was changed."""
    own = OwnPipelines(lab)
    name = own.new_name()
    own.put(f"{name}/a.jsonl", 0, SHARDS * RECORDS)
    spec = own.spec(name)
    own.write(name, {**spec, "shard": {"max_records": RECORDS}})
    limit = "plugins.ml_commons.max_batch_inference_tasks"
    lab.node("PUT", "_cluster/settings", {"persistent": {limit: 500}})
    jobs = lab.jobs()
    try:
        own.airflow.wait_for_dag(name)
        run = own.run(name)
        assert own.airflow.wait(name, run.run_id, wait_s=5 * WAIT_S) == "success"
    finally:
        lab.node("PUT", "_cluster/settings", {"persistent": {limit: None}})
    counts = run.counts()
    assert (counts["indexed"], counts["paid"], counts["shards"]) == (SHARDS * RECORDS, SHARDS * RECORDS, SHARDS)
    assert (lab.jobs() - jobs, own.count(name.replace("_", "-"))) == (SHARDS, SHARDS * RECORDS)
    tasks = own.airflow.tasks(name, run.run_id)
    assert len([task for task in tasks if task["task_id"] == "ingest"]) == -(-SHARDS // 64)
