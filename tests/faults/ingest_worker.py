"""A process that runs one ingest, so that it can be killed; it is a fork of one that has all imports behind it."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import boto3
import msgspec
from opensearchpy import OpenSearch

from include.local_stack.processes import start_time
from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.ingest.batch_ingestion import parse_request
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.engine import CHECKPOINT_S, Ingest, Locations
from opensearch_batch.core.ingest.join import MEMORY_BYTES
from opensearch_batch.core.ingest.mapped_documents import MappedDocumentFactory
from opensearch_batch.core.ingest.request_ingest import find_sources, run_batch_ingestion
from opensearch_batch.core.ingest.sinks.opensearch import IndexSink
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.identity import digest
from opensearch_batch.services.registry import row_errors
from tests.stored import present
from tests.waiting import WAIT_S


class Servers(msgspec.Struct, frozen=True):
    """Where the cluster and the store are."""

    opensearch: str
    s3: str
    access_key: str
    secret_key: str


class Task(msgspec.Struct, frozen=True):
    """What to ingest; with `each_body` progress is recorded after every body, not every two seconds."""

    servers: Servers
    request: dict[str, Any]
    work_prefix: str
    each_body: bool = False
    force: bool = False
    memory_bytes: int = MEMORY_BYTES
    folder: str | None = None
    largest_file_bytes: int | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How it ended: a report, or an error's type and text."""

    report: IngestReport | None = None
    error: str = ""
    text: str = ""


def ingest(task: Task) -> IngestReport:
    """Run the ingest."""
    s3 = boto3.client(
        "s3",
        endpoint_url=task.servers.s3,
        region_name="us-east-1",
        aws_access_key_id=task.servers.access_key,
        aws_secret_access_key=task.servers.secret_key,
    )
    cluster = Cluster(OpenSearch(task.servers.opensearch, max_retries=0, timeout=WAIT_S, pool_maxsize=16), "node")
    if task.each_body:
        return _recording_each_body(task, S3Objects(s3), cluster)
    return run_batch_ingestion(
        parse_request(task.request),
        S3Objects(s3),
        cluster,
        work_prefix=task.work_prefix,
        row_errors=row_errors(),
        force=task.force,
        memory_bytes=task.memory_bytes,
        spill_folder=Path(task.folder) if task.folder else None,
    )


def _recording_each_body(task: Task, objects: Objects, cluster: Cluster) -> IngestReport:
    """Let two seconds pass at every look at the clock."""
    batch = parse_request(task.request)
    return Ingest(
        objects,
        IndexSink(objects, cluster, batch.ingest),
        MappedDocumentFactory(batch.ingest, Reading(objects, row_errors=row_errors(), memory_bytes=task.memory_bytes)),
        locations=Locations.of(task.work_prefix, f"{task.work_prefix}/{digest(batch.ingest.index, *batch.sources)}"),
        clock=itertools.count(step=CHECKPOINT_S).__next__,
    ).run(find_sources(batch, objects), force=task.force)


def work(task: Task, answer: Connection) -> None:
    """Do a task and send its outcome."""
    if task.largest_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task.largest_file_bytes, task.largest_file_bytes))
    try:
        outcome = Outcome(ingest(task))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return
    except BatchError as error:
        outcome = Outcome(None, type(error).__name__, str(error))
    answer.send(outcome)


class Worker:
    """One process that ingests."""

    def __init__(self, task: Task) -> None:
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload([__name__])
        self._answer, theirs = forks.Pipe(duplex=False)
        self._process = forks.Process(target=work, args=(task, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill it, and see it dead."""
        pid = present(self._process.pid)
        started = start_time(pid)
        os.kill(pid, signal.SIGKILL)
        # Another process may get its number.
        while started is not None and start_time(pid) == started:
            time.sleep(0.001)

    def end(self) -> Outcome | int:
        """Wait for its end: its outcome, or the number of the signal that ended it."""
        try:
            outcome: Outcome | None = self._answer.recv()
        except EOFError:
            outcome = None
        self._process.join(WAIT_S)
        code = self._process.exitcode
        self._process.close()
        self._answer.close()
        assert code is not None
        if outcome is None:
            return -code
        assert code == 0
        return outcome
