"""A cluster of three nodes of which one is lost, or each is restarted in turn: no document is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.local_stack.settings import StackOptions, node_names
from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.ingest.batch_ingestion import parse_request
from opensearch_batch.core.ingest.request_ingest import run_batch_ingestion
from opensearch_batch.core.opensearch.client import Address, opensearch_client
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.services.registry import row_errors
from tests.distributed.outcomes import OUTCOMES, Outcome
from tests.distributed.running_stack import RunningStack
from tests.faults.ingestion import BULK
from tests.faults.proxy import Fault, Proxy, first, passes
from tests.faults.waits import TASK_INDEX, Wait, ended
from tests.lab import MODEL
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(900)
RECORDS = 2_000
# As often as Airflow repeats a task.
ATTEMPTS = 3
BODY = {
    "settings": {"number_of_shards": 3, "number_of_replicas": 1},
    "mappings": {"properties": {"n": {"type": "integer"}, "text": {"type": "text"}}},
}


class ClusterStack(RunningStack):
    """A stack with three nodes and without Airflow."""

    def __init__(self, home: Path) -> None:
        services = frozenset({"opensearch", "s3", "ai_services"})
        super().__init__(StackOptions(home=home, services=services, free_ports=True, opensearch_nodes=3))

    def set_up(self) -> None:
        """Create what the tests need; a proxy is before each node."""
        self.lab.sagemaker.create_model(ModelName=MODEL)
        self.proxies = [Proxy(url) for url in self.lab.stack.addresses.opensearch_nodes]
        hosts = ",".join(proxy.url.removeprefix("http://") for proxy in self.proxies)
        self.cluster = Cluster(opensearch_client(Address(hosts)), "three nodes")
        self.bucket = self.lab.new_bucket()

    def ingest(self, index: str, part: int) -> tuple[IngestReport, int]:
        """Ingest documents of their own as a task of Airflow does; return the report and the attempts beyond one."""
        rows = (
            json.dumps({"id": f"d{n}", "n": n, "text": f"text {n}"})
            for n in range(part * RECORDS, (part + 1) * RECORDS)
        )
        source = f"s3://{self.bucket}/{index}/{part}.jsonl"
        self.lab.objects.write(source, "\n".join(rows).encode())
        request: dict[str, Any] = {
            "index_name": index,
            "field_map": {"_id": "$.id", "n": "$.n", "text": "$.text"},
            "data_source": {"type": "s3", "source": [source]},
            "index_body": BODY,
            "max_body_bytes": 10_000,
        }
        for retries in range(ATTEMPTS):
            try:
                return self._once(request), retries
            except RetriableError:
                if retries == ATTEMPTS - 1:
                    raise
                # As Airflow does before it repeats a task.
                time.sleep(10)
        raise AssertionError

    def _once(self, request: dict[str, Any]) -> IngestReport:
        return run_batch_ingestion(
            parse_request(request),
            self.lab.objects,
            self.cluster,
            work_prefix=f"s3://{self.bucket}/work",
            row_errors=row_errors(),
        )

    def on_every_node(self, request: str, number: int, fault: Fault) -> None:
        """Configure a fault for the first node that gets so many requests."""
        occurred = threading.Event()

        def once(exchange: Any) -> None:
            if occurred.is_set():
                passes(exchange)
            else:
                occurred.set()
                fault(exchange)

        for proxy in self.proxies:
            proxy.on(request, number, once)

    def wait_until_green(self) -> None:
        """Return when all nodes and all copies of all shards are there."""
        path = "/_cluster/health?wait_for_status=green&wait_for_nodes=3&timeout=2s"
        eventually(lambda: self._health(path), "the cluster to be green")

    def _health(self, path: str) -> bool:
        try:
            answer: dict[str, Any] = self.cluster.call("GET", path)
        except RetriableError:
            return False
        return bool(answer["status"] == "green")

    def outcome(self, fault: str, index: str, parts: int, retries: int, began: float) -> Outcome:
        """Count what is in the index, and record it."""
        self.wait_until_green()
        self.cluster.refresh(index)
        expected = {f"d{number}" for number in range(parts * RECORDS)}
        hits = self.cluster.call("POST", f"/{index}/_search", {"size": 10_000, "_source": False, "version": True})[
            "hits"
        ]["hits"]
        found = [hit["_id"] for hit in hits]
        outcome = Outcome(
            fault=fault,
            records=len(expected),
            lost=len(expected - set(found)),
            twice=len(found) - len(expected & set(found)),
            paid_twice=0,
            jobs=0,
            written_again=sum(hit["_version"] - 1 for hit in hits),
            retries=retries,
            seconds=time.monotonic() - began,
        )
        OUTCOMES.append(outcome)
        return outcome

    def close(self) -> None:
        """Stop everything."""
        super().close()
        for proxy in self.proxies:
            proxy.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    """The stack."""
    stack = ClusterStack(tmp_path_factory.mktemp("cluster"))
    yield stack
    stack.close()


def test_a_data_node_is_killed_during_bulk(cluster: ClusterStack) -> None:
    """Each shard has a copy elsewhere; what the node had not confirmed is sent again."""
    cluster.wait_until_green()
    began = time.monotonic()
    cluster.on_every_node(BULK, 3, first(lambda: cluster.kill("opensearch-2")))
    report, retries = cluster.ingest("killed", 0)
    assert report.counts.indexed + report.counts.unchanged == RECORDS
    outcome = cluster.outcome("kill -9 of one of three OpenSearch nodes during bulk", "killed", 1, retries, began)
    assert (outcome.lost, outcome.twice) == (0, 0)


def test_a_rolling_restart(cluster: ClusterStack) -> None:
    """Ingest after ingest, while each node ends in order and comes back."""
    cluster.wait_until_green()
    began, parts, retries = time.monotonic(), 0, 0
    rolled = threading.Event()

    def roll() -> None:
        for name in node_names(3):
            before = cluster.programs(name)
            cluster.signal(name, signal.SIGTERM)
            eventually(lambda name=name, before=before: cluster.programs(name) not in ([], before), f"{name} again")  # type: ignore[misc] # a default
            cluster.wait_until_green()
        rolled.set()

    thread = threading.Thread(target=roll, daemon=True)
    thread.start()
    while not rolled.is_set() or parts == 0:
        report, more = cluster.ingest("rolled", parts)
        assert report.counts.indexed + report.counts.unchanged == RECORDS
        parts, retries = parts + 1, retries + more
        # The search for all documents returns 10,000.
        if parts == 10_000 // RECORDS:
            break
        time.sleep(5)
    eventually(rolled.is_set, "the rolling restart")
    thread.join()
    outcome = cluster.outcome(
        "rolling restart of three OpenSearch nodes during ingests", "rolled", parts, retries, began
    )
    assert (outcome.lost, outcome.twice) == (0, 0)


def test_the_node_that_runs_an_ml_task_is_lost(cluster: ClusterStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait goes on through the other nodes, and its job is the only one."""
    cluster.wait_until_green()
    began = time.monotonic()
    wait = Wait(cluster.lab, monkeypatch, seconds=3600)
    cluster.cluster.refresh(TASK_INDEX)
    task = cluster.cluster.call("GET", f"/_plugins/_ml/tasks/{wait.submitted.ml_task_id}")
    nodes = cluster.cluster.call("GET", "/_nodes")["nodes"]
    (worker,) = task["worker_node"]

    async def killed() -> tuple[bool, dict[str, object]]:
        waiting = asyncio.create_task(ended(wait.trigger()))
        await asyncio.sleep(2)
        cluster.kill(nodes[worker]["name"])
        await asyncio.sleep(5)
        await asyncio.to_thread(cluster.lab.end_delays)
        return await waiting

    succeeds, result = asyncio.run(killed())
    assert (succeeds, result["state"]) == (True, "COMPLETED")
    jobs = wait.flow.jobs() - wait.flow.jobs_before
    OUTCOMES.append(
        Outcome(
            fault="kill -9 of the OpenSearch node that ran the ML task",
            records=len(wait.flow.ids),
            lost=0,
            twice=0,
            paid_twice=jobs - 1,
            jobs=jobs,
            written_again=0,
            retries=0,
            seconds=time.monotonic() - began,
        )
    )
    assert jobs == 1
