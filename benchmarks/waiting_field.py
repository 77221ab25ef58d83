"""Where waits are measured: a stack whose Airflow reaches the node through a proxy that counts.

ML Commons makes a connection for each call of an AI service, so the egress proxy's log counts those.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import msgspec
import requests
from opensearchpy import OpenSearch

from benchmarks.counting import Counting, counting
from include.local_stack import processes
from include.local_stack.airflow import Airflow, connections
from include.local_stack.airflow_api import AirflowAPI
from include.local_stack.settings import REPOSITORY
from include.local_stack.stack import Stack, StackOptions, down
from include.local_stack.state import StackState, StateFile
from include.local_stack.supervisor import Supervisor
from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.submission import MLCommonsSubmitter, Submission
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.opensearch.ml_commons import MLCommons, fill
from opensearch_batch.core.pipeline.bodies import packaged_body
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.job import JobRecord, ResubmitRequest
from opensearch_batch.services.registry import adapter_of, service_of

WAIT_S, LOOK_EVERY_S = 900.0, 2.0
SUBMIT_THREADS = 8
DAG_ID = "waiting"
BUCKET, FOLDER = "waiting", "s3://waiting/jobs"
MODEL = "all-MiniLM-L6-v2"
BASE_SERVICES = frozenset({"opensearch", "s3", "ai_services"})
MIB = 1 << 20


class Used(msgspec.Struct, frozen=True):
    """What the triggerer's processes hold and have used, and whom was called, at one moment."""

    at: float
    rss_mb: float
    cpu_s: float
    polls: int
    service_calls: int


class Field:
    """A stack whose waits are counted: Airflow reaches the node through the counting proxy."""

    def __init__(self, stack: Stack, state: StackState, proxy: Counting, jobs: int) -> None:
        self.stack, self.proxy, self.jobs = stack, proxy, jobs
        self._options = StackOptions(home=stack.home, free_ports=True)
        self._state = state
        keys = stack.credentials
        session = boto3.Session(
            aws_access_key_id=keys.access_key, aws_secret_access_key=keys.secret_key, region_name="us-east-1"
        )
        self.s3: Any = session.client("s3", endpoint_url=stack.addresses.s3)
        self.sagemaker: Any = session.client("sagemaker", endpoint_url=stack.addresses.ai_services)
        self._ml = MLCommons(Cluster(OpenSearch(stack.addresses.opensearch, max_retries=0, pool_maxsize=16), DAG_ID))

    def start_airflow(self) -> AirflowAPI:
        """Start Airflow's processes with the benchmark's DAG and room for all jobs in one triggerer."""
        airflow = Airflow(self._options, self._state.ports)
        airflow.prepare()
        supervisor = Supervisor(StateFile(self.stack.home), _quiet)
        commands = [msgspec.structs.replace(found, env=self._environment(found.env)) for found in airflow.commands()]
        supervisor.in_parallel([partial(supervisor.ensure, command) for command in commands])
        return airflow.api()

    def submit(self, numbers: range, *, hours: float, delays_s: list[float]) -> None:
        """Submit jobs that begin after a delay, all through the ordinary submission."""
        for delay_s in sorted(set(delays_s)):
            fault = {"service": "sagemaker", "fault": "delay", "seconds": delay_s, "times": delays_s.count(delay_s)}
            url = f"{self.stack.addresses.ai_services}/faults"
            requests.post(url, json=fault, timeout=30).raise_for_status()
        model = self._ml.ensure_model(DAG_ID, _connector(self.stack))
        objects = S3Objects(self.s3)
        way = service_of("sagemaker").client(self.sagemaker, objects)
        through = MLCommonsSubmitter(
            self._ml, adapter_of("sagemaker"), way, model=model, overrides={}, inputs=("$.text",)
        )

        def one(number: int) -> None:
            begun = time.time() - hours * 3600

            def draft(submission: int) -> JobRecord:
                name, out = f"waiting-{number}", f"s3://{BUCKET}/out/{number}/"
                source = f"s3://{BUCKET}/in.jsonl"
                return JobRecord(name, name, "sagemaker", model.id, source, out, begun, submission)

            job_records = JobRecords(objects, f"{FOLDER}/{number}")
            for may_fail in (True, True, False):
                try:
                    Submission(job_records, through, clock=time.time, sleep=time.sleep).run(draft, ResubmitRequest())
                except RetriableError:
                    # A node that is busy with so many submissions loses a connection now and then.
                    if not may_fail:
                        raise
                else:
                    return

        with ThreadPoolExecutor(SUBMIT_THREADS) as pool:
            list(pool.map(one, numbers))

    def used(self) -> Used:
        """Look at the triggerer's processes and at the counters."""
        state = StateFile(self.stack.home).read()
        parent = state.processes["airflow-triggerer"] if state else None
        # The parent only starts the triggerer again.
        found = [each for each in processes.members_of_session(parent) if each != parent] if parent else []
        usages = [usage(process.pid) for process in found]
        log = self.stack.home / "logs" / "egress.log"
        counts = self.proxy.counts
        return Used(
            time.time(),
            sum(rss for rss, _ in usages),
            sum(cpu for _, cpu in usages),
            counts["polls"],
            # The node makes a connection for each call.
            log.read_bytes().count(b"CONNECT api.sagemaker"),
        )

    def ended_at(self, number: int) -> float:
        """Return when SageMaker ended a job."""
        found = self.sagemaker.describe_transform_job(TransformJobName=f"waiting-{number}")
        return float(found["TransformEndTime"].timestamp())

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        given = {
            f"AIRFLOW_CONN_{found.pop('connection_id').upper()}": json.dumps(
                found | ({"port": self.proxy.port} if found["conn_type"] == "opensearch" else {})
            )
            for found in connections(self._state.ports, self.stack.credentials)
        }
        return {
            **env,
            **given,
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "benchmarks" / "waiting_dag"),
            "AIRFLOW__CORE__MAX_MAP_LENGTH": str(self.jobs + 1),
            "AIRFLOW__TRIGGERER__CAPACITY": str(self.jobs + 1),
            "WAITING_FOLDER": FOLDER,
            "WAITING_JOBS": str(self.jobs),
        }


class Run:
    """One run of the benchmark's DAG."""

    def __init__(self, api: AirflowAPI) -> None:
        self._api = api
        api.wait_for_dag(DAG_ID)
        self._path = f"dags/{DAG_ID}/dagRuns/{api.trigger(DAG_ID)}/taskInstances"

    def wait_for_waits(self, count: int) -> None:
        """Return when so many tasks wait in the triggerer."""
        until(lambda: self._waiting() >= count, f"{count} waiting tasks")

    def began_at(self, number: int) -> float | None:
        """Return when the task behind a job's wait began, None while it has not."""
        found = self._api.call("GET", f"{self._path}/then/{number}")["start_date"]
        return None if found is None else dt.datetime.fromisoformat(found).timestamp()

    def _waiting(self) -> int:
        answer = self._api.call("GET", self._path, task_id="poll", state="deferred", limit=1)
        return int(answer["total_entries"])


@contextmanager
def started(jobs: int) -> Iterator[Field]:
    """Run the stack in a temporary home; all of it is gone afterwards, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="waiting-") as name:
        home = Path(name)
        try:
            stack = Stack.up(StackOptions(home=home, services=BASE_SERVICES, free_ports=True), say=_quiet)
            state = StateFile(home).read()
            if state is None:
                raise RuntimeError(f"{home}: the stack left no state")
            with counting(state.ports.opensearch) as proxy:
                yield _prepared(Field(stack, state, proxy, jobs))
        finally:
            down(home, say=_quiet)


def _prepared(field: Field) -> Field:
    """Put the one input there, and let ML Commons take as many jobs as it can."""
    field.s3.create_bucket(Bucket=BUCKET)
    field.s3.put_object(Bucket=BUCKET, Key="in.jsonl", Body=json.dumps({"text": "a fish"}).encode())
    field.sagemaker.create_model(ModelName=MODEL)
    limit = {"transient": {"plugins.ml_commons.max_batch_inference_tasks": 500}}
    url = f"{field.stack.addresses.opensearch}/_cluster/settings"
    field.stack.node_session().put(url, json=limit, timeout=30).raise_for_status()
    return field


def _connector(stack: Stack) -> dict[str, Any]:
    body = packaged_body("connector", "sagemaker")
    keys = stack.credentials
    credential = {"access_key": keys.access_key, "secret_key": keys.secret_key}
    values = {"region": "us-east-1", "model_name": MODEL, "endpoint_name": MODEL}
    return fill({**body, "credential": {}}, values, "connector") | {"credential": credential}


def usage(pid: int) -> tuple[float, float]:
    """Return resident memory in MiB and processor seconds of a process; nothing of one that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    ticks = int(fields[11]) + int(fields[12])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB, ticks / os.sysconf("SC_CLK_TCK")


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it takes too long.
    """
    give_up_at = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{what}: not there after {WAIT_S:.0f} s")
        time.sleep(LOOK_EVERY_S)


def _quiet(line: str) -> None:
    """Say nothing: the table is the output."""
