"""The local stack of `benchmarks.page`: one real run of the demo, a written history, and an api-server to restart."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import requests

from benchmarks.page_history import PIPELINE, REQUESTS, History, Sizes
from include.local_stack import processes
from include.local_stack.airflow import ADMIN, Airflow
from include.local_stack.airflow_api import AirflowAPI
from include.local_stack.settings import REPOSITORY
from include.local_stack.stack import Stack, StackOptions, down
from include.local_stack.state import StackState, StateFile
from include.local_stack.supervisor import Supervisor
from opensearch_batch.core.runs.run_lists import recent_runs
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.layout import DEFAULT_WORK_PREFIX, Layout
from tests.lab import Lab

API_SERVER = "airflow-api-server"
VERSION = "2.19.1"
TIMEOUT_S = 120
MIB = 1 << 10


class Site:
    """A stack whose api-server runs with the plugin or without it."""

    def __init__(self, stack: Stack, home: Path) -> None:
        self.stack, self.url = stack, stack.addresses.airflow
        self.lab = Lab(stack, VERSION)
        self._home = home
        self._airflow = Airflow(StackOptions(home=home, free_ports=True), self._state().ports)
        self.login = (ADMIN, stack.airflow_password())

    def _state(self) -> StackState:
        state = StateFile(self._home).read()
        if state is None:
            raise RuntimeError(f"{self._home}: the stack left no state")
        return state

    def write_history(self, sizes: Sizes) -> None:
        """Run the demo's pipeline, then write the files and the database rows of all other runs."""
        self.lab.run("demo")
        api = self.stack.airflow_api()
        for dag_id in (REQUESTS, "replay"):
            api.wait_for_dag(dag_id)
        # Its written run in progress must stay as it is.
        api.call("PATCH", f"dags/{PIPELINE}", {"is_paused": True})
        (newest,) = recent_runs(CachedReader(self.lab.objects), Layout(DEFAULT_WORK_PREFIX, PIPELINE), limit=1)
        now = time.time()
        History(self.lab.objects, DEFAULT_WORK_PREFIX, sizes, newest, now=now).write()
        command = [sys.executable, "-m", "benchmarks.page_runs", msgspec.json.encode(sizes).decode(), str(now)]
        subprocess.run(command, check=True, env=self._airflow.environment(), cwd=REPOSITORY)  # noqa: S603 - a module of this package

    def start_api_server(self, *, plugin: bool) -> None:
        """Stop the api-server, and start another one."""
        processes.stop(self._state().processes[API_SERVER])
        (command,) = (each for each in self._airflow.commands() if each.name == API_SERVER)
        if not plugin:
            folder = self._home / "no_plugins"
            folder.mkdir(exist_ok=True)
            command = msgspec.structs.replace(
                command, env={**command.env, "AIRFLOW__CORE__PLUGINS_FOLDER": str(folder)}
            )
        Supervisor(StateFile(self._home), _quiet).ensure(command)

    def api(self) -> AirflowAPI:
        """Return Airflow's own API, signed in."""
        return self.stack.airflow_api()

    def memory_mb(self) -> float:
        """Return the memory of the api-server's processes, each shared page divided by those who share it."""
        found = processes.members_of_session(self._state().processes[API_SERVER])
        return sum(_pss_kib(process.pid) for process in found) / MIB

    def token(self) -> str:
        """Return a token of Airflow."""
        name, password = self.login
        body = {"username": name, "password": password}
        answer = requests.post(f"{self.url}/auth/token", json=body, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def session(self, headers: Mapping[str, str] | None = None, login: Any = None) -> requests.Session:  # noqa: ANN401 - as requests has it
        """Return an HTTP session that keeps its connections."""
        session = requests.Session()
        session.trust_env = False
        session.headers.update(headers or {})
        session.auth = login
        return session


@contextmanager
def started(sizes: Sizes) -> Iterator[Site]:
    """Run the stack in a temporary home; all of it is gone afterwards, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="page-") as name:
        home = Path(name)
        try:
            stack = Stack.up(StackOptions(home=home, free_ports=True, opensearch_version=VERSION), say=_quiet)
            site = Site(stack, home)
            site.write_history(sizes)
            yield site
            site.lab.close()
        finally:
            down(home, say=_quiet)


def _pss_kib(pid: int) -> float:
    """Return the proportional set size of a process; nothing of one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return float(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def _quiet(line: str) -> None:
    """Say nothing: the table is the output."""
