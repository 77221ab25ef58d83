"""The Celery stack, its processes, and how to kill, pause and miss them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import yaml
from redis import Redis

from include.local_stack.airflow import Airflow, connections
from include.local_stack.processes import RunningProcess, start_time
from include.local_stack.stack import StackOptions
from tests.distributed.running_stack import RunningStack
from tests.end_to_end.own_pipelines import OwnPipelines
from tests.faults.proxy import Exchange, Fault, Proxy
from tests.lab import MODEL
from tests.stored import present
from tests.waiting import eventually

NODE_CONN, S3_CONN = "opensearch_of_the_test", "aws_of_the_test"
QUEUE = "default"
# More than the tests need; all are parsed once, before the first.
PIPELINES, PAIRS = 32, 3


class CeleryStack(RunningStack):
    """The stack on free ports, with pipelines whose requests pass a proxy before the node and one before S3."""

    def __init__(self, home: Path) -> None:
        super().__init__(StackOptions(home=home, free_ports=True, executor="celery"))

    def set_up(self) -> None:
        """Create connections and pipelines."""
        self.airflow = self.lab.stack.airflow_api()
        # As `up` makes it, for its health checks and its two servers.
        self.processes = Airflow(self.options, self.state.ports)
        self.servers = present(self.processes.celery)
        self.node, self.s3 = Proxy(self.lab.stack.addresses.opensearch), Proxy(self.lab.stack.addresses.s3)
        self.lab.sagemaker.create_model(ModelName=MODEL)
        self._connect()
        self.pipelines = OwnPipelines(self.lab)
        self.index_of: dict[str, str] = {}
        self._names = self._provide_pipelines()

    def _connect(self) -> None:
        node, aws, *_ = connections(self.state.ports, self.lab.stack.credentials)
        host, _, port = self.node.url.removeprefix("http://").partition(":")
        node |= {"connection_id": NODE_CONN, "host": host, "port": int(port)}
        extra = json.loads(aws["extra"])
        extra["service_config"]["s3"] = {"endpoint_url": self.s3.url}
        aws |= {"connection_id": S3_CONN, "extra": json.dumps(extra)}
        for connection in (node, aws):
            self.airflow.call("POST", "connections", connection)

    def _provide_pipelines(self) -> list[str]:
        """Write the pipelines; each has an index of its own, but the first ones share one in pairs."""
        names = [self.pipelines.new_name() for _ in range(PIPELINES)]
        texts = {}
        for number, name in enumerate(names):
            shared = names[number - number % 2] if number < 2 * PAIRS else name
            self.index_of[name] = shared.replace("_", "-")
            spec = self.pipelines.spec(
                name,
                shard={"max_records": 100},
                ingest={"index": self.index_of[name], "max_body_bytes": 60_000, "max_in_flight": 2},
                connections={"opensearch": NODE_CONN, "aws": S3_CONN},
            )
            texts[name] = yaml.safe_dump(spec, sort_keys=False)
        self.pipelines.write_texts(texts)
        for name in names:
            self.airflow.wait_for_dag(name)
        return names

    def pair(self) -> tuple[str, str]:
        """Return two pipelines that have not run yet and write one index."""
        first, second, *self._names = self._names
        return first, second

    def pipeline(self) -> str:
        """Return a pipeline that has not run yet."""
        return self._names.pop()

    def sender(self, exchange: Exchange) -> tuple[str, RunningProcess]:
        """Return the process of the stack that has sent a request to a proxy, and which of its programs."""
        port = exchange.client_port
        connections = psutil.net_connections("tcp4")
        pids = [each.pid for each in connections if each.laddr.port == port and each.pid not in (None, os.getpid())]
        assert pids, "only root may see which process of Airflow has sent a request"
        pid = int(pids[0])
        session = os.getsid(pid)
        name = next(name for name, process in self.state.processes.items() if process.pid == session)
        return name, RunningProcess(pid=pid, started=start_time(pid) or "")

    def kills_sender(self, killed: list[str], *, after: bool) -> Fault:
        """Kill the worker that sends a request, before the server has handled it, or after that; add it to `killed`."""

        def fault(exchange: Exchange) -> None:
            if after:
                exchange.forward()
            killed.append(self.sender(exchange)[0])
            self.kill(killed[-1])
            exchange.reset()

        return fault

    def wait_until_healthy(self) -> None:
        """Return when every process of Airflow is healthy, and has been started again if it had ended."""
        for command in (*self.processes.servers(), *self.processes.commands()):
            eventually(command.is_healthy, f"{command.name} to be healthy")

    def queued(self) -> int:
        """Return the number of messages in Celery's queue."""
        with self.redis() as client:
            return int(client.llen(QUEUE))

    def redis(self) -> Redis:
        """Return a client of the broker."""
        return Redis.from_url(self.servers.broker.url)

    def triggerer_of(self, dag_id: str) -> str:
        """Return the triggerer that has a pipeline's wait, ``""`` if none has."""
        query = (
            "SELECT job.hostname FROM task_instance JOIN trigger ON trigger.id = task_instance.trigger_id "
            "JOIN job ON job.id = trigger.triggerer_id WHERE task_instance.dag_id = %s"
        )
        rows = self.servers.database.rows(query, dag_id)
        return str(rows[0][0]) if rows else ""

    def scheduler_of(self, dag_id: str) -> str:
        """Return the scheduler that has sent a pipeline's task to the broker, ``""`` if there is none."""
        query = (
            "SELECT job.hostname FROM task_instance JOIN job ON job.id = task_instance.queued_by_job_id "
            "WHERE task_instance.dag_id = %s AND task_instance.state IN ('queued', 'running')"
        )
        rows = self.servers.database.rows(query, dag_id)
        return str(rows[0][0]) if rows else ""

    def settle(self) -> None:
        """Remove faults that have not occurred."""
        self.lab.no_faults()
        self.node.settle()
        self.s3.settle()

    def close(self) -> None:
        """Stop everything."""
        super().close()
        self.node.close()
        self.s3.close()


def tries(tasks: list[dict[str, Any]]) -> int:
    """Return the attempts of tasks beyond their first."""
    return sum(max(0, task["try_number"] - 1) for task in tasks)
