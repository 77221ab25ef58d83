"""Pipelines as a user has them: files become DAGs that run by hand, by clock, for partitions, backwards and on news."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.runs.retention import Retention
from opensearch_batch.core.runs.run_account import ShardRunCounts
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.services.registry import adapter_of
from tests.end_to_end.own_pipelines import OwnPipelines
from tests.lab import Lab
from tests.waiting import WAIT_S, eventually

NIGHTLY = "0 2 * * *"


@pytest.fixture(scope="module")
def own(lab: Lab) -> Iterator[OwnPipelines]:
    """A user's own pipelines."""
    own = OwnPipelines(lab)
    yield own
    own.pause()


def counted(**counts: int) -> dict[str, int]:
    """Return a run's counts; those not given are zero."""
    return dict.fromkeys(ShardRunCounts.__struct_fields__, 0) | counts


def yesterday() -> str:
    """Return the date of the last run of a nightly pipeline: the day its period began."""
    now = datetime.now(UTC)
    last = now.replace(hour=2, minute=0, second=0, microsecond=0)
    return str((last if last <= now else last - timedelta(days=1)).date() - timedelta(days=1))


@pytest.mark.slow
def test_a_nightly_run_reads_yesterday_and_late_data_costs_what_is_new(lab: Lab, own: OwnPipelines) -> None:
    """Switched on, it runs for the day that has ended; done again it pays and writes only what came late.

    It may have fewer shards than before, or more.
    """
    name = own.new_name()
    index, date = name.replace("_", "-"), yesterday()
    own.put(f"{name}/dt={date}/a.jsonl", 0, 20)
    own.put(f"{name}/dt=2020-01-01/a.jsonl", 100, 5)
    spec = own.spec(name, schedule=NIGHTLY, source={"uri": f"s3://{own.documents}/{name}/dt={{{{ ds }}}}/"})
    own.write(name, {**spec, "shard": {"max_records": 10}})
    jobs = lab.jobs()
    own.airflow.wait_for_dag(name)
    (run,) = own.wait_for_runs(name, 1)
    assert run.wait() == "success"
    assert run.counts() == counted(read=20, indexed=20, paid=20, shards=2, objects=1, opened=1)
    assert lab.jobs() - jobs == 2

    writes = own.writes(index)
    own.backfill(name, date, date, again=True)
    assert run.found_nothing()
    assert (lab.jobs() - jobs, own.writes(index)) == (2, writes)

    own.put(f"{name}/dt={date}/b.jsonl", 20, 3)
    own.backfill(name, date, date, again=True)
    assert run.counts() == counted(read=3, indexed=3, paid=3, shards=1, objects=2, opened=1, before=20, kept=20)
    assert own.writes(index) == writes + 3
    assert (lab.jobs() - jobs, own.count(index)) == (3, 23)

    own.put(f"{name}/dt={date}/c.jsonl", 30, 15)
    own.backfill(name, date, date, again=True)
    assert run.counts() == counted(read=15, indexed=15, paid=15, shards=2, objects=3, opened=1, before=23, kept=23)
    assert (lab.jobs() - jobs, own.count(index)) == (5, 38)


@pytest.mark.slow
def test_a_partition_is_named_by_its_key(lab: Lab, own: OwnPipelines) -> None:
    """A run for a partition reads the prefix of its key; another run for it finds it done."""
    name = own.new_name()
    own.put(f"{name}/day=2026-03-01/a.jsonl", 0, 4)
    own.put(f"{name}/day=2026-03-02/a.jsonl", 4, 5)
    source = {"uri": f"s3://{own.documents}/{name}/day={{{{ partition_key }}}}/"}
    own.write(name, own.spec(name, schedule={"partitions": NIGHTLY}, source=source))
    own.airflow.wait_for_dag(name)
    jobs = lab.jobs()
    for key, counted in (("2026-03-01", 4), ("2026-03-02", 5)):
        run = own.run(name, partition_key=key)
        assert run.wait() == "success"
        assert run.counts()["indexed"] == counted
    again = own.run(name, partition_key="2026-03-02")
    assert again.wait() == "success"
    assert (again.found_nothing(), lab.jobs() - jobs) == (True, 2)


@pytest.mark.slow
def test_a_partition_timetable_runs_by_itself(own: OwnPipelines) -> None:
    """Every minute, for the partition of the minute before."""
    name = own.new_name()
    source = {"uri": f"s3://{own.documents}/{name}/{{{{ partition_key }}}}/", "on_empty": "skip"}
    schedule = {"partitions": "* * * * *", "key_format": "%Y%m%dT%H%M"}
    own.write(name, own.spec(name, schedule=schedule, source=source))
    own.airflow.wait_for_dag(name)
    (run, *_) = own.wait_for_runs(name, 1)
    assert run.wait() == "success"
    told = own.airflow.run(name, run.run_id)
    before = datetime.fromisoformat(told["run_after"]) - timedelta(minutes=1)
    assert told["partition_key"] == before.strftime("%Y%m%dT%H%M")
    assert "no objects below this prefix" in run.log("prepare")


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(1800)
def test_thirty_dates_backwards_with_a_broken_one(lab: Lab, own: OwnPipelines) -> None:
    """Four runs and two jobs at once: 29 dates are indexed, the broken one fails alone; done again it costs nothing."""
    name = own.new_name()
    index, first, days = name.replace("_", "-"), datetime(2026, 1, 1, tzinfo=UTC), 30
    dates = [str((first + timedelta(days=day)).date()) for day in range(days)]
    for day, date in enumerate(dates):
        own.put(f"{name}/dt={date}/a.jsonl", day * 10, 10)
    lab.s3.put_object(Bucket=own.documents, Key=f"{name}/dt={dates[7]}/a.jsonl", Body=b"{broken\n")
    spec = own.spec(
        name,
        schedule=NIGHTLY,
        source={"uri": f"s3://{own.documents}/{name}/dt={{{{ ds }}}}/", "on_empty": "skip"},
        batch_predict={"max_jobs_in_flight": 2},
    )
    own.write(name, spec)
    own.airflow.wait_for_dag(name)
    jobs = lab.jobs()
    own.backfill(name, dates[0], dates[-1])
    found = own.airflow.call("GET", f"dags/{name}/dagRuns", run_type="backfill", limit=100)["dag_runs"]
    states = {run["logical_date"][:10]: run["state"] for run in found}
    assert {date for date, state in states.items() if state == "failed"} == {dates[7]}
    assert (len(states), sum(state == "success" for state in states.values())) == (30, 29)
    assert (own.count(index), lab.jobs() - jobs) == (290, 29)
    writes = own.writes(index)
    own.backfill(name, dates[0], dates[-1], again=True)
    assert (own.writes(index), lab.jobs() - jobs) == (writes, 29)


@pytest.mark.slow
def test_new_objects_start_a_run_and_whoever_follows_the_index(own: OwnPipelines) -> None:
    """Each object that comes starts a run; a pipeline that follows the index runs when something was written."""
    name, follower = own.new_name(), own.new_name()
    index = name.replace("_", "-")
    own.put(f"{follower}/a.jsonl", 500, 2)
    own.write(follower, own.spec(follower, schedule={"assets": [f"x-opensearch://opensearch_default/{index}"]}))
    own.airflow.wait_for_dag(follower)
    own.put(f"{name}/a.jsonl", 0, 3)
    own.write(name, own.spec(name, schedule={"new_objects": {"poll_every_s": 1}}))
    # What was there before somebody switched it on is news, too.
    own.airflow.wait_for_dag(name)
    (first, *_) = own.wait_for_runs(name, 1)
    assert (first.wait(), first.counts()["indexed"]) == ("success", 3)
    (followed, *_) = own.wait_for_runs(follower, 1)
    assert followed.wait() == "success"
    own.put(f"{name}/b.jsonl", 3, 4)
    second = own.wait_for_runs(name, 2)[1]
    assert second.wait() == "success"
    assert own.count(index) == 7


@pytest.mark.slow
def test_events_of_a_bucket_start_a_run(lab: Lab, own: OwnPipelines) -> None:
    """S3 tells the queue, and the queue's message starts the run; an object of another prefix starts none."""
    name = own.new_name()
    sqs = lab.aws_at_s3("sqs")
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    lab.s3.put_bucket_notification_configuration(Bucket=own.documents, NotificationConfiguration=events)
    own.write(name, own.spec(name, schedule={"new_objects": {"poll_every_s": 1, "sqs": queue}}))
    own.airflow.wait_for_dag(name)
    own.put(f"{own.new_name()}/a.jsonl", 0, 3)
    eventually(lambda: _is_empty(sqs, queue), "the empty queue")
    assert own.runs(name) == []
    own.put(f"{name}/a.jsonl", 0, 3)
    (run, *_) = own.wait_for_runs(name, 1)
    assert (run.wait(), run.counts()["indexed"]) == ("success", 3)
    lab.s3.put_bucket_notification_configuration(Bucket=own.documents, NotificationConfiguration={})


def _is_empty(sqs: Any, queue: str) -> bool:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return {found[name] for name in names} == {"0"}


@pytest.fixture(scope="module")
def formed(own: OwnPipelines) -> str:
    """A pipeline with documents, which may use another service."""
    instead = {"openai": {"connector": "openai", "values": {"model_name": "text-embedding-3-small"}}}
    name = own.add(batch_predict={"instead": instead})
    own.put(f"{name}/a.jsonl", 0, 30)
    return name


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"source": "/documents"}, "source"),
        ({"source": "s3://documents/{{ conf }}/"}, "source"),
        ({"index": "Upper Case"}, "index"),
        ({"service": "gpt"}, "service"),
        ({"max_records": 0}, "max_records"),
        ({"force": "perhaps"}, "force"),
    ],
)
def test_a_form_with_a_bad_value_starts_no_run(own: OwnPipelines, formed: str, conf: dict[str, Any], told: str) -> None:
    """Airflow refuses it with the field's name; nothing is prepared."""
    with pytest.raises(requests.HTTPError, match=rf"400.*{told}"):
        own.run(formed, conf)


@pytest.mark.slow
def test_the_form_chooses_index_service_and_how_much(lab: Lab, own: OwnPipelines, formed: str) -> None:
    """A trial of five records goes through another service into another index."""
    counts = f"{lab.stack.addresses.ai_services}/jobs/count"
    before = lab.http.get(counts, timeout=WAIT_S).json()
    run = own.run(formed, {"service": "openai", "index": f"{formed.replace('_', '-')}-trial", "max_records": 5})
    assert run.wait() == "success"
    after = lab.http.get(counts, timeout=WAIT_S).json()
    assert (run.counts()["read"], own.count(f"{formed.replace('_', '-')}-trial")) == (5, 5)
    assert (after.get("openai", 0) - before.get("openai", 0), after["sagemaker"]) == (1, before["sagemaker"])
    assert run.task("publish")["state"] == "skipped"


@pytest.mark.slow
def test_a_dry_run_says_what_it_would_cost_and_does_nothing(lab: Lab, own: OwnPipelines) -> None:
    """No job, no index, no object; the plan stands in the log and as an XCom."""
    name = own.add(shard={"max_records": 10})
    own.put(f"{name}/a.jsonl", 0, 25)
    jobs = lab.jobs()
    run = own.run(name, {"dry_run": True})
    assert run.wait() == "success"
    plan = own.airflow.xcom(run.task("prepare"), "plan")
    assert (plan["counts"]["records"], plan["shards"], plan["jobs"], plan["done"]) == (25, 3, 3, 0)
    assert "3 jobs to pay for" in run.log("prepare")
    assert lab.jobs() == jobs
    index = f"{lab.stack.addresses.opensearch}/{name.replace('_', '-')}"
    assert lab.http.head(index, timeout=WAIT_S).status_code == 404
    assert "Contents" not in lab.s3.list_objects_v2(Bucket=own.work_prefix, Prefix=f"{name}/")


@pytest.mark.slow
def test_a_changed_field_map_is_ingested_anew_and_pays_nothing(lab: Lab, own: OwnPipelines) -> None:
    """What was predicted is there; only the documents change."""
    name = own.add()
    own.put(f"{name}/a.jsonl", 0, 12)
    assert own.run(name).wait() == "success"
    jobs = lab.jobs()
    spec = own.spec(name)
    spec["ingest"]["field_map"]["body"] = "$.text"
    own.write(name, spec)
    run = own.run(name)
    assert run.wait() == "success"
    assert (run.counts()["indexed"], run.counts()["unchanged"], lab.jobs()) == (12, 0, jobs)
    hit = lab.node("GET", f"{name.replace('_', '-')}/_doc/d3")["_source"]
    assert (hit["body"], hit["text"]) == ("passage number 3", "passage number 3")


@pytest.mark.slow
def test_two_pipelines_write_one_index(own: OwnPipelines) -> None:
    """Each keeps its own ledger, and neither writes again what the other wrote."""
    one, other = own.new_name(), own.new_name()
    index = {"ingest": {"index": one.replace("_", "-")}}
    for name, first in ((one, 0), (other, 100)):
        own.write(name, own.spec(name, **index))
        own.put(f"{name}/a.jsonl", first, 10)
    for name in (one, other):
        own.airflow.wait_for_dag(name)
        assert own.run(name).wait() == "success"
    assert own.count(one.replace("_", "-")) == 20
    again = own.run(one)
    assert again.wait() == "success"
    assert again.found_nothing()


@pytest.mark.slow
def test_a_broken_file_is_an_import_error_and_the_others_run(own: OwnPipelines) -> None:
    """Airflow shows file, line and the nearest right name."""
    name = own.new_name()
    own.write(name, {**own.spec(name), "retention": 3})
    path = own.folder / "pipelines" / f"{name}.yaml"

    def told() -> str | None:
        errors = own.airflow.call("GET", "importErrors")["import_errors"]
        return next((error["stack_trace"] for error in errors if name in error["stack_trace"]), None)

    try:
        error = eventually(told, "the import error")
        line = path.read_text().splitlines().index("retention: 3") + 1
        assert f"{path}:{line} retention: unknown key. Did you mean 'retention_days'?" in error
        healthy = own.add()
        own.put(f"{healthy}/a.jsonl", 0, 1)
        assert own.run(healthy).wait() == "success"
    finally:
        path.unlink()


@pytest.mark.slow
def test_a_run_accounts_for_its_records(own: OwnPipelines) -> None:
    """The account of the run holds the sums and where the dead letters lie."""
    name = own.add(ingest={"dead_letters": f"s3://{own.work_prefix}/letters"}, max_dead_letters="50%")
    own.put(f"{name}/a.jsonl", 0, 6)
    own.lab.s3.put_object(Bucket=own.documents, Key=f"{name}/b.jsonl", Body=b'{"_id": "x"}\n{broken\n')
    run = own.run(name)
    assert run.wait() == "success"
    assert run.counts() == counted(read=8, indexed=6, dead_letters=2, paid=6, shards=1, objects=2, opened=2)
    (queue,) = own.airflow.xcom(run.task("reconcile"))["dead_letters"]
    listed = own.lab.http.get(own.links(run, "prepare")["Dead letters"], timeout=WAIT_S).text
    assert "not JSON" in listed
    hits = own.lab.http.get(own.links(run, "ingest", 0)["Index"], timeout=WAIT_S).json()["hits"]
    assert hits["total"]["value"] == 6
    letters = own.lab.s3.list_objects_v2(Bucket=own.work_prefix, Prefix=queue.partition(f"{own.work_prefix}/")[2])[
        "Contents"
    ]
    body = own.lab.s3.get_object(Bucket=own.work_prefix, Key=letters[0]["Key"])["Body"].read()
    assert [json.loads(line)["line"] for line in body.splitlines()] == [1, 2]


@pytest.mark.slow
def test_what_is_done_is_known_when_the_files_of_its_job_are_gone(lab: Lab, own: OwnPipelines) -> None:
    """Predictions are in the store: another field map pays nothing, and only a forced run pays again."""
    name = own.add()
    own.put(f"{name}/a.jsonl", 0, 5)
    assert own.run(name).wait() == "success"
    jobs, index = lab.jobs(), name.replace("_", "-")
    layout = Layout(f"s3://{own.work_prefix}/{name}", name)
    retention = Retention(
        lab.objects,
        layout,
        PredictionStore(lab.objects, layout.predictions()),
        outputs=lambda record, response: adapter_of(record.service).outputs(record, response),
        unstage=lambda _: None,
    )
    assert retention.run(30 * 86_400, now=time.time() + 31 * 86_400) == 1
    found = lab.objects.list(f"s3://{own.work_prefix}/{name}/jobs/")
    assert {item.uri.rpartition("/")[2] for item in found} == {"job.json"}
    writes = own.writes(index)
    again = own.run(name)
    assert again.wait() == "success"
    assert (again.found_nothing(), lab.jobs(), own.writes(index)) == (True, jobs, writes)

    spec = own.spec(name)
    spec["ingest"]["field_map"]["body"] = "$.text"
    own.write(name, spec)
    changed = own.run(name)
    assert changed.wait() == "success"
    assert (changed.counts()["indexed"], lab.jobs()) == (5, jobs)
    forced = own.run(name, {"force": True})
    assert forced.wait() == "success"
    assert (forced.counts()["indexed"], lab.jobs()) == (5, jobs + 1)


@pytest.mark.slow
def test_records_without_a_prediction_are_submitted_once_more(lab: Lab, own: OwnPipelines) -> None:
    """In one job of the run, for which a worker starts; the task waits for it in the triggerer."""
    name = own.add(batch_predict={"repair_at_most": "60%"}, shard={"max_records": 10})
    own.put(f"{name}/a.jsonl", 0, 20)
    jobs = lab.jobs()
    lab.fault(service="sagemaker", fault="partial", operation="CreateTransformJob", every=2)
    run = own.run(name)
    assert run.wait() == "success"
    assert run.counts() == counted(read=20, indexed=20, paid=20, shards=2, objects=1, opened=1)
    assert (lab.jobs() - jobs, own.count(name.replace("_", "-"))) == (3, 20)
    assert (run.task("repair")["state"], run.task("ingest_repaired")["state"]) == ("success", "success")


@pytest.mark.slow
def test_a_removed_record_is_deleted_only_if_the_pipeline_says_so(lab: Lab, own: OwnPipelines) -> None:
    """Kept documents are remarked on; deletions publish the index, and nothing is paid for."""
    name = own.add()
    own.put(f"{name}/a.jsonl", 0, 4)
    own.put(f"{name}/b.jsonl", 4, 2)
    assert own.run(name).wait() == "success"
    jobs, index = lab.jobs(), name.replace("_", "-")
    own.put(f"{name}/a.jsonl", 1, 3)
    kept = own.run(name)
    assert kept.wait() == "success"
    assert kept.counts() == counted(read=3, unchanged=3, objects=2, opened=1, before=6, kept=5, removed=1)
    assert (own.count(index), kept.task("publish")["state"]) == (6, "skipped")
    assert "1 documents stay in the index" in kept.log("prepare")
    own.write(name, own.spec(name, source={"on_removed": "delete"}))
    own.put(f"{name}/b.jsonl", 4, 1)
    deleted = own.run(name)
    assert deleted.wait() == "success"
    assert deleted.counts()["deleted"] == 1
    assert (own.count(index), lab.jobs(), deleted.task("publish")["state"]) == (5, jobs, "success")


@pytest.mark.slow
def test_the_backfill_of_the_readme_says_what_it_finds(lab: Lab) -> None:
    """`make backfill` on this stack: two days once, and again for nothing."""
    said = lab.run("backfill", DAYS="2")
    assert "2 batch jobs submitted, 200 index operations" in said
    assert said.splitlines()[-1] == "0 batch jobs submitted, 0 index operations"
