"""Which processes make up a service and what each waits for. Ports are fixed before, so that most wait for nothing."""

from __future__ import annotations

import os
import sys
from functools import partial

import boto3
import msgspec

from include.local_stack import egress, egress_certificates, opensearch
from include.local_stack.ai_services import model
from include.local_stack.airflow import Airflow
from include.local_stack.airflow_components import COMPONENTS, LOG_BUCKET
from include.local_stack.buckets import create_bucket
from include.local_stack.opensearch_artifacts import missing
from include.local_stack.processes import Command, child_environment
from include.local_stack.settings import REPOSITORY, StackOptions, node_names
from include.local_stack.state import Credentials, StackState
from include.local_stack.supervisor import Say, Supervisor, answers, stays_alive

LISTENERS = {
    "opensearch": ("opensearch", "opensearch_transport"),
    "opensearch-2": ("opensearch_2", "opensearch_2_transport"),
    "opensearch-3": ("opensearch_3", "opensearch_3_transport"),
    "egress": ("egress",),
    "s3": ("s3",),
    "ai_services": ("ai_services",),
    "airflow-api-server": ("airflow",),
    "postgres": ("postgres",),
    "redis": ("redis",),
}
# The servers of Airflow that an executor needs.
SERVERS = {"local": (), "celery": ("postgres", "redis")}


def processes_of(shape: StackOptions | StackState) -> dict[str, tuple[str, ...]]:
    """The processes of each service of a stack."""
    components = (component.process for component in COMPONENTS[shape.executor])
    return {
        "opensearch": ("egress", *node_names(shape.opensearch_nodes)),
        "s3": ("s3",),
        "ai_services": ("ai_services", "ai_services-worker"),
        "airflow": (*SERVERS[shape.executor], *components),
    }


class Services:
    """Starts the chosen services of one stack."""

    def __init__(
        self, options: StackOptions, state: StackState, keys: Credentials, supervisor: Supervisor, say: Say
    ) -> None:
        self._options = options
        self._ports = state.ports
        self._keys = keys
        self._supervisor = supervisor
        self._say = say
        self._certificates = options.home / "certificates"

    def start(self) -> None:
        """Start all at once, each as soon as what it needs is there."""
        branches = {"opensearch": self._opensearch, "airflow": self._airflow}
        chosen = [start for service, start in branches.items() if service in self._options.services]
        self._supervisor.in_parallel([*chosen, self._s3_and_ai_services])

    def _s3_and_ai_services(self) -> None:
        """The AI services read and write objects: S3 is there first."""
        first, then = [], []
        if "s3" in self._options.services:
            first.append(self._start_s3)
        if "ai_services" in self._options.services:
            first.append(self._fetch_model)
            then.append(lambda: self._supervisor.ensure(self._ai_services(), self._ports.url("ai_services")))
            then.append(lambda: self._supervisor.ensure(self._ai_worker()))
        self._supervisor.in_parallel(first)
        self._supervisor.in_parallel(then)

    def _start_s3(self) -> None:
        self._supervisor.ensure(self._s3(), self._ports.url("s3"))
        if self._options.executor == "celery":
            session = boto3.Session(self._keys.access_key, self._keys.secret_key, region_name="us-east-1")
            create_bucket(session.client("s3", endpoint_url=self._ports.url("s3")), LOG_BUCKET)

    def _opensearch(self) -> None:
        """The nodes resolve names and trust certificates that are made before their first start."""
        egress_certificates.ensure(self._certificates)
        self._supervisor.in_parallel([lambda: self._supervisor.ensure(self._egress()), self._nodes])

    def _nodes(self) -> None:
        options = self._options
        if missing(opensearch.lock_of(options).artifacts(), options.cache / "jars"):
            self._say(f"fetching OpenSearch {options.opensearch_version} with mvn, about 450 MB, once")
        nodes = [
            opensearch.prepare(options, self._keys, certificates=self._certificates, name=name)
            for name in node_names(options.opensearch_nodes)
        ]
        self._supervisor.check_cancelled()
        self._supervisor.in_parallel(partial(self._node, node) for node in nodes)

    def _node(self, node: opensearch.Node) -> None:
        options = self._options
        env = {"PATH": os.environ.get("PATH", os.defpath)}
        command = opensearch.command(node, options, self._ports, self._keys, env=env)
        url = self._ports.url(node.name.replace("-", "_"), tls=options.security)
        self._supervisor.ensure(command, f"{url}   {options.opensearch_version}")

    def _airflow(self) -> None:
        airflow = Airflow(self._options, self._ports)
        self._supervisor.in_parallel(partial(self._supervisor.ensure, server) for server in airflow.servers())
        airflow.prepare()
        self._supervisor.check_cancelled()
        starts = [
            partial(self._supervisor.ensure, command, _page(command, airflow.url)) for command in airflow.commands()
        ]
        self._supervisor.in_parallel(starts)
        airflow.connect(self._keys)

    def _fetch_model(self) -> None:
        folder = self._options.cache / "model"
        if not folder.exists():
            self._say("fetching the embedding model, about 85 MB, once")
        model.fetch(folder)

    def _s3(self) -> Command:
        port = self._ports.s3
        argv = ("-m", "include.local_stack.s3_server", "--port", str(port))
        command = self._python("s3", argv, port=port, path="/moto-api/")
        # Its objects are in memory: started again, it would be empty, and look as if it served.
        return msgspec.structs.replace(command, restarts=False)

    def _ai_services(self) -> Command:
        port = self._ports.ai_services
        argv = ("-m", "include.local_stack.ai_services", "--port", str(port), *self._ai_arguments())
        return self._python("ai_services", argv, port=port, path="/health", keys=self._keys)

    def _ai_worker(self) -> Command:
        argv = ("-m", "include.local_stack.ai_services.worker", *self._ai_arguments())
        return self._python("ai_services-worker", argv, keys=self._keys)

    def _ai_arguments(self) -> tuple[str, ...]:
        state = self._options.home / "ai_services"
        state.mkdir(mode=0o700, exist_ok=True)
        folders = ("--state", str(state), "--model", str(self._options.cache / "model"))
        return (*folders, "--s3-endpoint", self._ports.url("s3"))

    def _egress(self) -> Command:
        ports = ("--port", str(self._ports.egress), "--upstream-port", str(self._ports.ai_services))
        argv = ("-m", "include.local_stack.egress", *ports, "--certificates", str(self._certificates))
        return self._python("egress", argv, port=self._ports.egress, path=egress.HEALTH_PATH)

    def _python(
        self, name: str, argv: tuple[str, ...], *, port: int = 0, path: str = "/", keys: Credentials | None = None
    ) -> Command:
        """A process of this project's own environment; without a port, staying alive is all it can show."""
        return Command(
            name=name,
            argv=(sys.executable, *argv),
            env=child_environment() | {"PYTHONUNBUFFERED": "1"} | (keys.as_environment() if keys else {}),
            cwd=REPOSITORY,
            log=self._options.home / "logs" / f"{name}.log",
            is_healthy=answers(port, path) if port else stays_alive(),
        )


def _page(command: Command, url: str) -> str:
    """Only one of Airflow's processes has an address."""
    return url if command.name in LISTENERS else ""
