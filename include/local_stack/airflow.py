"""Airflow's own processes on loopback, each started separately: `airflow standalone` would listen on every interface.

Database, password and keys belong to one stack home; secrets travel in the environment and in files of mode 0600.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import requests
from cryptography.fernet import Fernet

from include.local_stack import prerequisites, processes
from include.local_stack.airflow_api import AirflowAPI
from include.local_stack.airflow_components import COMPONENTS, CeleryServers, Component, health_check
from include.local_stack.machines import Machine
from include.local_stack.opensearch_home import servers_folder
from include.local_stack.opensearch_security import WORKER, authority_file
from include.local_stack.postgres import Postgres
from include.local_stack.processes import Command, child_environment
from include.local_stack.redis_server import RedisServer
from include.local_stack.settings import LOOPBACK, REPOSITORY, Ports, StackError, StackOptions, node_names
from include.local_stack.state import Credentials, credentials_of, write_private

ADMIN = "admin"
START_WAIT_S = 180.0
# Below the repository, or a machine's copy of it.
SETTINGS = Path("include") / "local_stack" / "airflow_settings"
# Airflow looks for these, as they stand here, in the lower case of the names of a request's members.
MASKED_WORDS = "access_key,secret_key,session_token,credential,openai_key,cohere_key"


class AirflowSecrets(msgspec.Struct, frozen=True):
    """What one Airflow keeps to itself."""

    fernet_key: str
    jwt_secret: str
    api_secret_key: str
    admin_password: str

    def __repr__(self) -> str:
        """Hide all of it from logs and tracebacks."""
        return "AirflowSecrets(...)"


class Airflow:
    """One Airflow in one stack home."""

    def __init__(self, options: StackOptions, ports: Ports) -> None:
        self.folder = options.home / "airflow"
        self.url = ports.url("airflow")
        self._logs = options.home / "logs"
        self._ca_certs = authority_file(options.home) if options.security else None
        # `db migrate` takes longer than all other steps together and always ends in the same empty tables.
        self._empty_database = options.cache / f"airflow-{version('apache-airflow')}.db"
        self._ports = ports
        self._nodes = options.opensearch_nodes
        self._overrides = options.airflow_environment
        self._components = COMPONENTS[options.executor]
        self.celery = _celery_servers(options, ports) if options.executor == "celery" else None

    def servers(self) -> list[Command]:
        """The processes that must serve before `prepare`."""
        if not self.celery:
            return []
        # Before the data folders of either are made.
        if missing := prerequisites.remedy(prerequisites.missing_for_celery):
            raise StackError(missing)
        self.celery.database.prepare()
        return [self.celery.database.command(), self.celery.broker.command()]

    def prepare(self) -> None:
        """Make secrets, database and machines; does nothing that was done before, but each machine gets what is new."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.own_dags.mkdir(exist_ok=True)
        password = read_secrets(self.folder).admin_password
        write_private(self._passwords_file, json.dumps({ADMIN: password}).encode())
        self.deploy()
        if self.celery:
            self._prepare_server(self.celery.database)
        else:
            self._prepare_file()

    def deploy(self) -> None:
        """Copy the project to each machine, with the DAGs beside the repository's."""
        for component in self._components:
            if component.is_apart:
                self._machine(component).deploy(self.folder)

    def _prepare_server(self, database: Postgres) -> None:
        migrated = self.folder / "migrated"
        if not migrated.exists():
            database.create_database()
            self._migrate()
            migrated.touch()

    def _prepare_file(self) -> None:
        if self._database_file.exists():
            return
        if not self._empty_database.exists():
            self._migrate()
            self._keep_empty_database()
        else:
            shutil.copyfile(self._empty_database, self._database_file)

    def commands(self) -> list[Command]:
        """The processes; they may start at the same time."""
        return [
            Command(
                name=component.process,
                argv=(*_airflow_program(), *component.arguments),
                env=self.environment(component),
                cwd=self._machine(component).project if component.is_apart else REPOSITORY,
                log=self._logs / f"{component.process}.log",
                is_healthy=health_check(component, self._ports.airflow, self.celery),
                wait_s=START_WAIT_S,
            )
            for component in self._components
        ]

    def connect(self, credentials: Credentials) -> None:
        """Create or correct the connections that the pipelines use by default."""
        api = self.api()
        for connection in connections(self._ports, credentials, ca_certs=self._ca_certs, nodes=self._nodes):
            try:
                api.call("PATCH", f"connections/{connection['connection_id']}", connection)
            except requests.HTTPError as error:
                if error.response.status_code != requests.codes.not_found:
                    raise
                api.call("POST", "connections", connection)

    def api(self) -> AirflowAPI:
        """The REST API, signed in as admin."""
        return AirflowAPI(self.url, ADMIN, read_secrets(self.folder).admin_password)

    def environment(self, component: Component | None = None) -> dict[str, str]:
        """The environment of the processes, or of one of them, with secrets."""
        environment = child_environment() | self._common_settings() | _places(REPOSITORY, self.folder, self.own_dags)
        if self.celery:
            environment |= self.celery.settings()
        if component:
            environment["LOCAL_MACHINE"] = component.name
        if component and component.is_apart:
            machine = self._machine(component)
            environment |= _places(machine.project, machine.home, machine.own_dags)
            environment["TMPDIR"] = str(machine.temporary)
        return environment | self._overrides

    def _machine(self, component: Component) -> Machine:
        return Machine(component.name, self.folder / "machines" / component.name)

    def _common_settings(self) -> dict[str, str]:
        own = read_secrets(self.folder)
        return {
            # The packages of Airflow warn about each other; a log of those hides what matters.
            "PYTHONWARNINGS": "ignore",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": own.fernet_key,
            "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": MASKED_WORDS,
            "AIRFLOW__CORE__AUTH_MANAGER": (
                "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
            ),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords_file),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self._database_file}",
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self._ports.airflow),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": own.api_secret_key,
            "AIRFLOW__API_AUTH__JWT_SECRET": own.jwt_secret,
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            # A worker or a scheduler that died is noticed within a minute, not after five.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            # Parsing takes a seventh of two cores at an interval of 10 s. A file that is modified is parsed at once.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
            # The default, and two that only tests name.
            "AIRFLOW__OPENSEARCH_BATCH__REQUEST_CONNECTIONS": (
                "opensearch_default, aws_default, openai_default, openai_of_the_test, nowhere"
            ),
            # As many as this machine runs within minutes.
            "AIRFLOW__OPENSEARCH_BATCH__MAX_QUEUED_REQUESTS": "200",
        }

    @property
    def own_dags(self) -> Path:
        """A folder for DAG files beside the repository's."""
        return self.folder / "dags"

    @property
    def _database_file(self) -> Path:
        return self.folder / "airflow.db"

    @property
    def _passwords_file(self) -> Path:
        return self.folder / "passwords.json"

    def _migrate(self) -> None:
        """Create the tables."""
        log = self._logs / "airflow-migrate.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            answer = subprocess.run(
                [*_airflow_program(), "db", "migrate"],
                env=self.environment(),
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if answer.returncode:
            self._database_file.unlink(missing_ok=True)
            raise StackError(f"airflow db migrate failed. Last lines of {log}:\n{processes.tail(log)}")

    def _keep_empty_database(self) -> None:
        """Copy what `db migrate` made into the cache; the copy appears whole."""
        draft = self._empty_database.with_suffix(f".{os.getpid()}")
        draft.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._database_file)) as made, closing(sqlite3.connect(draft)) as kept:
            made.backup(kept)
        draft.replace(self._empty_database)


def _celery_servers(options: StackOptions, ports: Ports) -> CeleryServers:
    keys, folder, logs = credentials_of(options.home), servers_folder(options.home), options.home / "logs"
    return CeleryServers(
        Postgres(folder / "postgres", ports.postgres, keys.postgres_password, logs / "postgres.log"),
        RedisServer(folder / "redis", ports.redis, keys.redis_password, logs / "redis.log"),
    )


def _places(project: Path, home: Path, own_dags: Path) -> dict[str, str]:
    """The settings that name folders."""
    return {
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(map(str, (project, project / "plugins", project / SETTINGS))),
        "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
            [_bundle("dags-folder"), _bundle("own-dags", path=str(own_dags))]
        ),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
    }


def _bundle(name: str, **kwargs: str) -> dict[str, Any]:
    """Return a folder of DAG files; without a path it is Airflow's DAGS_FOLDER."""
    return {"name": name, "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": kwargs}


def connections(
    ports: Ports, credentials: Credentials, *, ca_certs: Path | None = None, nodes: int = 1
) -> list[dict[str, Any]]:
    """The bodies of the REST API; with `ca_certs`, the node is secured and the pipelines sign in as `worker`."""
    aws = {
        "region_name": "us-east-1",
        "service_config": {
            "s3": {"endpoint_url": ports.url("s3")},
            # The same server has the queues that tell of new objects, and the roles that pipelines assume.
            "sts": {"endpoint_url": ports.url("s3")},
            "sqs": {"endpoint_url": ports.url("s3")},
            "sagemaker": {"endpoint_url": ports.url("ai_services")},
            "sagemaker-runtime": {"endpoint_url": ports.url("ai_services")},
            "bedrock": {"endpoint_url": ports.url("ai_services")},
        },
    }
    return [
        _node_connection(ports, credentials, ca_certs, nodes),
        {
            "connection_id": "aws_default",
            "conn_type": "aws",
            "login": credentials.access_key,
            "password": credentials.secret_key,
            "extra": json.dumps(aws),
        },
        _ai_connection("openai_default", ports, credentials, path="/v1"),
        _ai_connection("cohere_default", ports, credentials),
    ]


def _ai_connection(name: str, ports: Ports, credentials: Credentials, *, path: str = "") -> dict[str, Any]:
    """The key of a service of its own is the secret of the stack's key pair."""
    return {
        "connection_id": name,
        "conn_type": "http",
        "host": f"{ports.url('ai_services')}{path}",
        "password": credentials.secret_key,
    }


def _node_connection(ports: Ports, credentials: Credentials, ca_certs: Path | None, nodes: int) -> dict[str, Any]:
    hosts = [f"{LOOPBACK}:{ports.of_node(name)[0]}" for name in node_names(nodes)]
    signed_in = {"login": WORKER, "password": credentials.opensearch_worker_password} if ca_certs else {}
    tls = {"use_ssl": True, "ca_certs": str(ca_certs)} if ca_certs else {"use_ssl": False}
    return {
        "connection_id": "opensearch_default",
        "conn_type": "opensearch",
        **({"host": LOOPBACK, "port": ports.opensearch} if nodes == 1 else {"host": ",".join(hosts)}),
        "extra": json.dumps(tls),
        **signed_in,
    }


def read_secrets(folder: Path) -> AirflowSecrets:
    """The secrets of this Airflow, made at the first call."""
    path = folder / "secrets.json"
    if not path.exists():
        made = AirflowSecrets(
            fernet_key=Fernet.generate_key().decode(),
            jwt_secret=secrets.token_urlsafe(48),
            api_secret_key=secrets.token_urlsafe(48),
            admin_password=secrets.token_urlsafe(12),
        )
        write_private(path, msgspec.json.encode(made))
    return msgspec.json.decode(path.read_bytes(), type=AirflowSecrets)


def _airflow_program() -> tuple[str, ...]:
    beside = Path(sys.executable).with_name("airflow")
    found = str(beside) if beside.exists() else shutil.which("airflow")
    if not found:
        raise StackError(f"{sys.executable} has no airflow beside it: run `make up`, which installs the requirements")
    return (sys.executable, found)
