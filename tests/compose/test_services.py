"""The services of docker-compose.yaml that are this project's start as the file says; Airflow's run a pipeline."""

from __future__ import annotations

import json
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.compose.certificates import NODE
from include.local_stack import prerequisites
from include.local_stack.ai_services.model import fetch
from include.local_stack.airflow_api import AirflowAPI
from include.local_stack.egress_certificates import TRUST_STORE
from include.local_stack.settings import LOOPBACK, options_from_environment
from tests.compose.as_processes import Processes, free_port, start_servers
from tests.compose.compose_file import compose_services, new_secrets
from tests.security.secured import Secured
from tests.waiting import WAIT_S, eventually

AIRFLOW = ("airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-worker")
RECORDS = 40


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account can reach."""
    with tempfile.TemporaryDirectory(prefix="compose-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def processes(folder: Path) -> Iterator[Processes]:
    """Processes that end with the test."""
    running = Processes(folder, {})
    yield running
    running.close()


@pytest.mark.slow
def test_the_stand_ins_and_the_way_to_them(folder: Path, processes: Processes) -> None:
    """Certificates for the node's name, the AI services with their worker, and the proxy that reaches them."""
    ports = {port: str(free_port()) for port in ("9400", "9401")}
    processes.places |= {
        "/opt/certificates": str(folder / "certificates"),
        "/opt/state": str(folder / "state"),
        "/opt/model": str(fetch(options_from_environment(os.environ).cache / "model")),
        "--host=0.0.0.0": f"--host={LOOPBACK}",
        "ai-services": LOOPBACK,
        # The check of the proxy asks for the node, too.
        "9200": ports["9400"],
        " || kill 1": "",
        **ports,
    }
    services = compose_services(new_secrets(folder))
    processes.run("certificates", services["certificates"])
    certificates = folder / "certificates"
    assert (certificates / TRUST_STORE).exists()
    assert (certificates / "node-key.pem").stat().st_mode & 0o777 == 0o600
    found = ssl._ssl._test_decode_cert(str(certificates / "node.pem"))  # type: ignore[attr-defined] # noqa: SLF001 - reads a file
    assert ("DNS", NODE) in found["subjectAltName"]
    for name in ("ai-services", "ai-services-worker", "egress"):
        processes.start(name, services[name])
        processes.wait_until_healthy(name, services[name])


@pytest.fixture
def started(folder: Path, processes: Processes, secured: Secured) -> dict[str, str]:
    """Airflow's services at work, with a secured node and an S3 server of the local stack; their secrets."""
    if missing := prerequisites.remedy(prerequisites.missing_for_celery):
        pytest.skip(missing)
    addresses, keys = secured.stack.addresses, secured.stack.credentials
    secrets = new_secrets(folder) | {
        "LOCAL_S3_ACCESS_KEY": keys.access_key,
        "LOCAL_S3_SECRET_KEY": keys.secret_key,
        "LOCAL_OPENSEARCH_ADMIN_PASSWORD": keys.opensearch_admin_password,
        "LOCAL_OPENSEARCH_WORKER_PASSWORD": keys.opensearch_worker_password,
    }
    postgres, redis = start_servers(processes, folder, secrets)
    node, api, health = addresses.opensearch.rpartition(":")[2], str(free_port()), str(free_port())
    (folder / "secrets").mkdir()
    processes.places |= {
        "/opt/project": str(Path(__file__).resolve().parents[2]),
        "/opt/secrets": str(folder / "secrets"),
        "/opt/certificates/ca.pem": addresses.ca_certs,
        "postgres:5432": f"{LOOPBACK}:{postgres}",
        "redis:6379": f"{LOOPBACK}:{redis}",
        "http://s3:7070": addresses.s3,
        "http://ai-services:9400": addresses.ai_services,
        "https://opensearch:9200": addresses.opensearch,
        '"host": "opensearch", "port": 9200': f'"host": "{LOOPBACK}", "port": {node}',
        "airflow-apiserver:8080": f"{LOOPBACK}:{api}",
        "localhost:8080": f"{LOOPBACK}:{api}",
        "localhost:8974": f"{LOOPBACK}:{health}",
    }
    services: dict[str, Any] = compose_services(secrets)
    own = {"AIRFLOW__API__PORT": api, "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": health}
    for name in ("airflow-init", *AIRFLOW):
        services[name]["environment"] |= own
    processes.run("airflow-init", services["airflow-init"])
    # A second start changes nothing.
    processes.run("airflow-init", services["airflow-init"])
    for name in AIRFLOW:
        processes.start(name, services[name])
    for name in AIRFLOW:
        processes.wait_until_healthy(name, services[name])
    return {**secrets, "url": f"http://{LOOPBACK}:{api}"}


@pytest.mark.distributed
def test_airflow_runs_a_pipeline(started: dict[str, str], secured: Secured) -> None:
    """The user signs in, the sample is there, a worker runs the tasks, and the node knows its user."""
    airflow = AirflowAPI(started["url"], "admin", started["LOCAL_AIRFLOW_PASSWORD"])
    airflow.wait_for_dag("passages")
    run = airflow.trigger("passages", {"max_records": RECORDS})
    eventually(
        lambda: airflow.run("passages", run)["state"] in {"success", "failed"}, "the run ends", wait_s=2 * WAIT_S
    )
    assert airflow.run("passages", run)["state"] == "success", json.dumps(airflow.tasks("passages", run))
    assert secured.admin("GET", "passages/_count")["count"] == RECORDS
    assert {task["hostname"] for task in airflow.tasks("passages", run) if task["hostname"]} == {socket.gethostname()}
