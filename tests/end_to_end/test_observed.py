"""What StatsD and OpenLineage receive of a real run, in an Airflow that is configured for both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from include.local_stack.airflow import connections
from include.local_stack.stack import Stack, StackOptions
from include.local_stack.state import StateFile
from opensearch_batch.core.runs.metrics import METRICS, SHARED_TAGS
from tests.end_to_end.own_pipelines import OwnPipelines, Run
from tests.lab import Lab
from tests.statsd import Received, StatsD
from tests.stored import present
from tests.waiting import eventually

pytestmark = pytest.mark.slow
RECORDS = 4


class Observed(msgspec.Struct):
    """A run that has ended, what StatsD received of it, and the lineage events."""

    run: Run
    own: OwnPipelines
    received: Received
    events: list[dict[str, Any]]


@pytest.fixture(scope="module")
def observed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """One run of four records, and a line that is none."""
    home, statsd = tmp_path_factory.mktemp("observed"), StatsD()
    file = home / "lineage.jsonl"
    host, port = statsd.socket.getsockname()
    settings = {
        "METRICS__STATSD_ON": "True",
        "METRICS__STATSD_HOST": host,
        "METRICS__STATSD_PORT": str(port),
        "METRICS__STATSD_INFLUXDB_ENABLED": "True",
        # Nobody reads during the run; Airflow's own metrics would fill the buffer.
        "METRICS__METRICS_ALLOW_LIST": "opensearch_batch",
        "OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(file), "append": True}),
    }
    environment = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    options = StackOptions(home=home, services=frozenset({"airflow"}), free_ports=True, airflow_environment=environment)
    stack = Stack.up(options)
    try:
        yield _run(_with_airflow(lab, stack), statsd, file)
    finally:
        stack.down()
        statsd.socket.close()


def _with_airflow(lab: Lab, stack: Stack) -> Lab:
    """Return the servers of the stack of all tests with another Airflow, which gets their connections."""
    api, ports = stack.airflow_api(), present(StateFile(lab.stack.home).read()).ports
    for body in connections(ports, lab.stack.credentials):
        api.call("PATCH", f"connections/{body['connection_id']}", body)
    addresses = msgspec.structs.replace(lab.stack.addresses, airflow=stack.addresses.airflow)
    return Lab(Stack(stack.home, addresses, lab.stack.credentials), lab.version)


def _run(lab: Lab, statsd: StatsD, file: Path) -> Observed:
    own = OwnPipelines(lab)
    name = own.add()
    own.put(f"{name}/a.jsonl", 0, RECORDS)
    lab.s3.put_object(Bucket=own.documents, Key=f"{name}/b.jsonl", Body=b"{oops\n")
    run = own.run(name)
    assert run.wait() == "success"

    def events() -> list[dict[str, Any]] | None:
        """Return the events of the run, when the last task's is there; another process writes them."""
        found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return found if any(is_end(event, f"{name}.publish") for event in found) else None

    written = eventually(events, "the events of the run")
    lab.close()
    return Observed(run, own, statsd.values(), written)


def is_end(event: dict[str, Any], job: str) -> bool:
    """Say whether an event is that of the end of a task."""
    return (event["eventType"], event["job"]["name"]) == ("COMPLETE", job)


def test_the_metrics_of_a_run_are_those_of_the_table(observed: Observed) -> None:
    """Each metric with each value of its own tags that the run has, and no other name or tag."""
    shared = dict(zip(SHARED_TAGS, (observed.run.dag_id, "sagemaker"), strict=True))
    left_out = {("documents", "delete"), ("paid_records", "repair")}
    expected = set()
    for metric in METRICS:
        own = [{tag: value} for tag, values in metric.own_tags.items() for value in values] or [{}]
        for tags in own:
            if (metric.name.removeprefix("opensearch_batch."), *tags.values()) not in left_out:
                expected.add((metric.name, tuple(sorted({**shared, **tags}.items()))))
    assert set(observed.received) == expected
    units = {metric.name: "ms" if metric.kind == "timer" else "c" for metric in METRICS}
    assert {(name, value.partition("|")[2]) for (name, _), value in observed.received.items()} == set(units.items())

    def value(name: str, **tags: str) -> float:
        key = f"opensearch_batch.{name}", tuple(sorted({**shared, **tags}.items()))
        return float(observed.received[key].partition("|")[0])

    assert value("records", outcome="indexed") == RECORDS
    assert value("records", outcome="dead_letters") == 1
    assert value("dead_letters", stage="prepare") == 1
    assert value("dead_letters", stage="ingest") == 0
    assert value("paid_records", stage="batch_predict") == RECORDS
    assert value("documents", operation="write") == RECORDS
    assert value("document_bytes") > RECORDS * 384
    assert value("document_retries") == 0
    assert value("job_wait") > 0


@pytest.mark.parametrize("task_id", ["ingest", "reconcile", "publish"])
def test_a_stage_reports_source_and_index(observed: Observed, task_id: str) -> None:
    """In its COMPLETE event, as the provider's file transport writes it."""
    name, own = observed.run.dag_id, observed.own
    (event,) = [each for each in observed.events if is_end(each, f"{name}.{task_id}")]
    port = own.lab.stack.addresses.opensearch.rpartition(":")[2]
    assert datasets(event, "inputs") == [(f"s3://{own.documents}", name)]
    assert datasets(event, "outputs") == [(f"opensearch://127.0.0.1:{port}", name.replace("_", "-"))]


def test_other_stages_report_no_dataset(observed: Observed) -> None:
    """Their events are Airflow's own."""
    for task_id in ("prepare", "batch_predict"):
        (event,) = [each for each in observed.events if is_end(each, f"{observed.run.dag_id}.{task_id}")]
        assert (datasets(event, "inputs"), datasets(event, "outputs")) == ([], [])


def datasets(event: dict[str, Any], side: str) -> list[tuple[str, str]]:
    """Return namespace and name of the datasets of an event."""
    return [(each["namespace"], each["name"]) for each in event[side]]
