"""Airflow's processes by executor, how each shows that it works, and the settings that differ by executor."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from datetime import timedelta

import msgspec

from include.local_stack.postgres import Postgres
from include.local_stack.redis_server import RedisServer
from include.local_stack.settings import LOOPBACK

HEALTH_PATH = "/api/v2/monitor/health"
HEARTBEAT_MAX_AGE = timedelta(seconds=20)
LOG_BUCKET = "airflow-logs"
# Celery's own attempts last longer than `[celery] operation_timeout` (1 s). So Airflow sees a timeout, and sends the
# message again; an error of Celery would use up an attempt of the task.
PUBLISH_RETRIES = {"max_retries": 20, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}
# serve-logs has no host option and listens on every interface. Local logs are read from the disk instead, those of
# several machines from S3.
SCHEDULER, TRIGGERER = ("scheduler", "--skip-serve-logs"), ("triggerer", "--skip-serve-logs")


class Component(msgspec.Struct, frozen=True):
    """One process: `health` is its key in Airflow's health report, which knows one of each kind only.

    `is_apart` says that it runs on a machine of its own.
    """

    name: str
    arguments: tuple[str, ...]
    health: str = ""
    is_apart: bool = False

    @property
    def process(self) -> str:
        """The name of the process in the stack."""
        return f"airflow-{self.name}"


API_SERVER = Component("api-server", ("api-server",), "metadatabase")
DAG_PROCESSOR = Component("dag-processor", ("dag-processor",), "dag_processor")
NUMBERS = (1, 2)
WORKERS = tuple(f"worker-{number}" for number in NUMBERS)
COMPONENTS = {
    "local": (
        API_SERVER,
        Component("scheduler", SCHEDULER, "scheduler"),
        DAG_PROCESSOR,
        Component("triggerer", TRIGGERER, "triggerer"),
    ),
    "celery": (
        API_SERVER,
        *(Component(f"scheduler-{number}", SCHEDULER) for number in NUMBERS),
        DAG_PROCESSOR,
        *(Component(f"triggerer-{number}", TRIGGERER, is_apart=True) for number in NUMBERS),
        *(
            Component(name, ("celery", "worker", "--skip-serve-logs", "--celery-hostname", name), is_apart=True)
            for name in WORKERS
        ),
    ),
}


class CeleryServers(msgspec.Struct, frozen=True):
    """The servers that CeleryExecutor needs."""

    database: Postgres
    broker: RedisServer

    def settings(self) -> dict[str, str]:
        """What Airflow needs, and what the faults of `tests/distributed/` are expected to need."""
        return {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            # For each of two schedulers: as many tasks as the two workers have processes, so that no task that is sent
            # waits for a slot until it counts as lost.
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            # Otherwise all processes of this machine have one name, in the table of jobs and at each task.
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "local_machine.name",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database.url,
            "AIRFLOW__CELERY__BROKER_URL": self.broker.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self.database.url}",
            # Longer than a task may take (`task_timeout_s`, a day): Redis delivers a message again that is not
            # confirmed by then, and a task is confirmed at its end.
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "90000",
            # A message that Redis or a killed worker lost is sent again after a minute instead of ten. A task that was
            # sent too often fails without a retry: twenty minutes without a worker are no reason to fail.
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "15",
            "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "20",
            # How often a message is sent to a broker that is away.
            "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"task_publish_retry_policy": PUBLISH_RETRIES}),
            "AIRFLOW__CELERY__TASK_PUBLISH_MAX_RETRIES": "100",
            # No machine reads another's disk.
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{LOG_BUCKET}",
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
        }

    def has_heartbeat(self, name: str) -> bool:
        """Whether a scheduler or a triggerer has shown that it works."""
        query = "SELECT 1 FROM job WHERE hostname = %s AND state = 'running' AND latest_heartbeat > now() - %s"
        if self.database.rows(query, name, HEARTBEAT_MAX_AGE):
            return True
        # Each look is a new session of the database, and takes its time from the component's start.
        time.sleep(0.5)
        return False


def health_check(component: Component, port: int, servers: CeleryServers | None) -> Callable[[], bool]:
    """Return the health check of a component."""
    if component.health or servers is None:
        return _report_check(port, component.health)
    if component.name in WORKERS:
        return _ping_check(servers.broker.url, component.name)
    return lambda: servers.has_heartbeat(component.name)


def _report_check(port: int, key: str) -> Callable[[], bool]:
    """A health check: Airflow itself says that this component is healthy."""

    def is_healthy() -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
        try:
            connection.request("GET", HEALTH_PATH)
            answer = connection.getresponse()
            status = json.loads(answer.read()) if answer.status == http.HTTPStatus.OK else {}
            return bool(status.get(key, {}).get("status") == "healthy")
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()

    return is_healthy


def _ping_check(broker_url: str, hostname: str) -> Callable[[], bool]:
    """A health check: this worker answers on the broker."""
    # Here, because two threads must not import it at the same time: its modules load each other lazily.
    from celery import Celery
    from kombu.exceptions import KombuError
    from redis import RedisError

    def is_healthy() -> bool:
        with Celery(broker=broker_url, set_as_current=False) as app:
            try:
                return bool(app.control.inspect(destination=[f"celery@{hostname}"], timeout=1.0).ping())
            except (OSError, KombuError, RedisError):
                return False

    return is_healthy
