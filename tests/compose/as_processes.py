"""Runs services of docker-compose.yaml as processes: their commands, environments and health checks are the file's.

Names of services, paths in containers and fixed ports become loopback addresses, temporary folders and free ports.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from include.local_stack.postgres import Postgres
from include.local_stack.redis_server import RedisServer
from include.local_stack.settings import LOOPBACK
from tests.compose.compose_file import ROOT, check_command
from tests.waiting import WAIT_S, eventually

BIN = Path(sys.executable).parent
# What the Dockerfile sets, and what containers have of their own: a network, a name, no other reader of their logs.
IMAGE = {
    "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",
    "HOSTNAME": socket.gethostname(),
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    "AIRFLOW__API__HOST": LOOPBACK,
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": LOOPBACK,
}
SERVES_LOGS = {"airflow-triggerer", "airflow-worker"}


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Processes:
    """Processes of one test, which end with it; `places` are the texts of the file that are replaced."""

    def __init__(self, folder: Path, places: Mapping[str, str]) -> None:
        self._folder, self.places = folder, dict(places)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, service: Mapping[str, Any]) -> None:
        """Start the command of a service."""
        command = [*self._here(service["command"]), *(["--skip-serve-logs"] if name in SERVES_LOGS else [])]
        self.launch(name, command, self._environment(name, service))

    def run(self, name: str, service: Mapping[str, Any]) -> None:
        """Run the command of a service that ends; it must succeed."""
        self.start(name, service)
        assert self._running.pop(name).wait(WAIT_S) == 0, self.log(name)

    def wait_until_healthy(self, name: str, service: Mapping[str, Any]) -> None:
        """Run the health check of a service until it succeeds."""
        command = self._here(check_command(service))
        # In a container, it would end the container.
        assert "kill" not in " ".join(command)
        environment = self._environment(name, service)

        def is_healthy() -> bool:
            assert self._running[name].poll() is None, self.log(name)
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)  # noqa: S603 - the file's own
            return done.returncode == 0

        eventually(is_healthy, f"{name} is healthy; its log: {self.log(name)}")

    def launch(self, name: str, command: list[str], environment: Mapping[str, str], *, user: int | None = None) -> None:
        """Start a process with a log of its own."""
        with self._log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603 - the file's own commands
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True, user=user
            )

    def log(self, name: str) -> str:
        """Return the end of a process's log."""
        return self._log(name).read_text(errors="replace")[-3000:] if self._log(name).exists() else ""

    def close(self) -> None:
        """End all processes, the last one first."""
        for process in reversed(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _environment(self, name: str, service: Mapping[str, Any]) -> dict[str, str]:
        home = self._folder / name
        home.mkdir(exist_ok=True)
        own = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home), "AIRFLOW_HOME": str(home)}
        declared = {key: self._replaced(str(value)) for key, value in (service.get("environment") or {}).items()}
        return {**own, **IMAGE, "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self._folder / "task-logs"), **declared}

    def _here(self, command: list[str]) -> list[str]:
        return [self._replaced(word) for word in command]

    def _replaced(self, text: str) -> str:
        for place, here in self.places.items():
            text = text.replace(place, here)
        return text

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def start_servers(processes: Processes, folder: Path, secrets: Mapping[str, str]) -> tuple[int, int]:
    """Start PostgreSQL and Redis, which are images in the file; return their ports."""
    ports = free_port(), free_port()
    log = folder / "servers.log"
    postgres = Postgres(folder / "postgres", ports[0], secrets["LOCAL_POSTGRES_PASSWORD"], log)
    postgres.prepare()
    redis = RedisServer(folder / "redis", ports[1], secrets["LOCAL_REDIS_PASSWORD"], log)
    for command in (postgres.command(), redis.command()):
        processes.launch(command.name, [*command.argv], command.env, user=command.uid)
        eventually(command.is_healthy, f"{command.name} answers")
    # The image creates the database of POSTGRES_DB.
    postgres.create_database()
    return ports
