"""A process that submits one shard's job and kills itself at a chosen moment; it is a fork of one with all imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec

from include.local_stack.stack import Stack
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.submission import MLCommonsSubmitter
from opensearch_batch.core.opensearch.ml_commons import MLCommons
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.manifest import Shard
from tests.conformance.shard_flow import ShardFlow
from tests.lab import Lab
from tests.stored import present
from tests.waiting import WAIT_S

# In the order of a submission: after which call the process dies, and the call's number of its kind.
MOMENTS: dict[str, tuple[type, str, int]] = {
    "looked": (JobRecords, "load", 1),
    "staged": (MLCommonsSubmitter, "stage", 1),
    "intended": (JobRecords, "write", 1),
    "paid": (MLCommonsSubmitter, "submit", 1),
    "recorded": (JobRecords, "write", 2),
}
# The same in real time: after which call, and how many requests are paid for again.
REALTIME_MOMENTS: dict[str, tuple[tuple[type, str, int], int]] = {
    "intended, in real time": ((JobRecords, "write", 1), 0),
    "answered": ((MLCommons, "predict", 3), 1),
    "stored": ((S3Objects, "write", 3), 0),
    "put together": ((S3Objects, "upload", 1), 0),
}
# While the paid call is under way: its request is sent, and its answer not yet read.
PAYING = "paying"


class Task(msgspec.Struct, frozen=True):
    """What to submit, and when to die."""

    home: Path
    version: str
    service: str
    bucket: str
    index: str
    shard: Shard
    moment: str


def die() -> None:
    """End as by ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)


def work_prefix(task: Task) -> None:
    """Submit, until the moment comes."""
    lab = Lab(Stack.running(task.home), task.version)
    flow = ShardFlow(lab, task.service, task.bucket, task.index)
    if task.moment == PAYING:
        _before(MLCommonsSubmitter, "submit", lambda: _before(HTTPConnection, "getresponse", die))
    else:
        owner, name, number = MOMENTS.get(task.moment) or REALTIME_MOMENTS[task.moment][0]
        _after(owner, name, number)
    flow.submit(task.shard)


def submit_and_die(task: Task) -> int:
    """Run it in a process of its own; return the signal that ended it."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    process = forks.Process(target=work_prefix, args=(task,), daemon=True)
    process.start()
    process.join(WAIT_S)
    code = present(process.exitcode)
    process.close()
    return -code


def _before(owner: type, name: str, do: Callable[[], None]) -> None:
    call: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        do()
        return call(*args, **kwargs)

    setattr(owner, name, wrapped)


def _after(owner: type, name: str, number: int) -> None:
    call: Callable[..., Any] = getattr(owner, name)
    left = number

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        found = call(*args, **kwargs)
        left -= 1
        if left == 0:
            die()
        return found

    setattr(owner, name, wrapped)
