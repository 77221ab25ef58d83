"""A run of many small shards on the whole local stack: its tasks, the seconds of a shard, and what the scheduler takes.

No setting of Airflow is changed. Each shard has its own job at the local SageMaker; ML Commons takes 500 at once.
"""

from __future__ import annotations

import datetime as dt
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.node import VERSION
from benchmarks.report import Case, Outcome
from benchmarks.waiting_field import usage
from include.local_stack import processes
from include.local_stack.stack import Stack, StackOptions
from include.local_stack.state import StateFile
from tests.end_to_end.own_pipelines import OwnPipelines
from tests.lab import MODEL, Lab

NAME = "many_shards"
SHARDS, QUICK_SHARDS, RECORDS = 2_500, 50, 2
WAIT_S, SAMPLE_EVERY_S = 7_200.0, 2.0
JOB_LIMIT = "plugins.ml_commons.max_batch_inference_tasks"
STAGES = ("prepare", "batch_predict", "poll", "ingest", "reconcile")


class Used(msgspec.Struct):
    """The most memory (MiB) that the scheduler's process held, and the processor seconds of its process group."""

    rss_mb: float = 0.0
    cpu_s: float = 0.0


def run(*, quick: bool = False) -> Outcome:
    """Run one pipeline of so many shards to its end."""
    shards = QUICK_SHARDS if quick else SHARDS
    with tempfile.TemporaryDirectory(prefix="many-shards-") as home, _stack(Path(home)) as lab:
        own = OwnPipelines(lab)
        name = own.new_name()
        own.put(f"{name}/a.jsonl", 0, shards * RECORDS)
        own.write(name, {**own.spec(name), "shard": {"max_records": RECORDS}})
        own.airflow.wait_for_dag(name)
        with _sampled(lab.stack) as used:
            began, started = time.monotonic(), own.run(name)
            state = own.airflow.wait(name, started.run_id, wait_s=WAIT_S)
            took_s = time.monotonic() - began
        if state != "success":
            raise RuntimeError(f"run {started.run_id} of {name}: {state}")
        counts, tasks = started.counts(), own.airflow.tasks(name, started.run_id)
    return Outcome(NAME, cases=_cases(shards, counts, tasks, took_s, used), remarks=[_spans(tasks)])


def _cases(shards: int, counts: dict[str, int], tasks: list[dict[str, Any]], took_s: float, used: Used) -> list[Case]:
    by_stage = Counter(task["task_id"] for task in tasks)
    records, exact = shards * RECORDS, (counts["indexed"], counts["paid"], counts["shards"])
    each = f"{took_s / shards:.2f} s of the run, {used.cpu_s / shards:.2f} s of CPU time of scheduler and tasks"
    return [
        Case(
            f"{shards:,} shards of {RECORDS} records",
            f"{records:,} documents, {records:,} paid",
            f"{exact[0]:,} documents, {exact[1]:,} paid, in {took_s:.0f} s",
            exact == (records, records, shards),
        ),
        Case("tasks of the run", "", ", ".join(f"{stage} {number}" for stage, number in by_stage.items())),
        Case("a shard", "", each),
        Case("the scheduler's memory, at most", "", f"{used.rss_mb:.0f} MiB"),
    ]


def _spans(tasks: list[dict[str, Any]]) -> str:
    """Tell from when to when the tasks of each stage were at work, in seconds of the run."""
    times = {
        stage: [
            dt.datetime.fromisoformat(task[key]).timestamp()
            for task in tasks
            if task["task_id"] == stage and task["start_date"] and task["end_date"]
            for key in ("start_date", "end_date")
        ]
        for stage in STAGES
    }
    first = min(min(each) for each in times.values() if each)
    return "at work: " + ", ".join(
        f"{stage} {min(each) - first:.0f} to {max(each) - first:.0f} s" for stage, each in times.items() if each
    )


@contextmanager
def _stack(home: Path) -> Iterator[Lab]:
    """Run the whole stack in a folder; its processes are gone afterwards, whatever happens."""
    stack = Stack.up(StackOptions(home=home, free_ports=True))
    lab = Lab(stack, VERSION)
    try:
        lab.sagemaker_model(MODEL)
        lab.node("PUT", "_cluster/settings", {"persistent": {JOB_LIMIT: 500}})
        yield lab
    finally:
        lab.close()
        stack.down()


@contextmanager
def _sampled(stack: Stack) -> Iterator[Used]:
    """Look at the scheduler's processes until the block ends."""
    used, ended, cpu_s = Used(), threading.Event(), dict[int, float]()
    state = StateFile(stack.home).read()
    if state is None:
        raise RuntimeError(f"{stack.home}: the stack left no state")
    parent = state.processes["airflow-scheduler"]
    # The parent only starts the scheduler again.
    (scheduler,) = psutil.Process(parent.pid).children()

    def look() -> None:
        while not ended.wait(SAMPLE_EVERY_S):
            for process in processes.members_of_session(parent):
                rss_mb, cpu_s[process.pid] = usage(process.pid)
                if process.pid == scheduler.pid:
                    used.rss_mb = max(used.rss_mb, rss_mb)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield used
    finally:
        ended.set()
        thread.join()
        used.cpu_s = sum(cpu_s.values())
