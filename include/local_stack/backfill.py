"""The passages of some days, backwards: every day is a run, and the same days again cost nothing.

Shows only what it measured: runs and their counts, jobs that SageMaker accepted, writes that the index saw.
"""

from __future__ import annotations

import gzip
import os
import sys
import time
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table

from include.local_stack.demo import DOCUMENTS, SAMPLE, Demo
from include.local_stack.stack import Stack, StackError

DAG_ID = "passages_daily"
PASSAGES_A_DAY, AT_ONCE = 100, 4
WAIT_S = 1800
SHOWN = ("read", "indexed", "unchanged")
console = Console(highlight=False, soft_wrap=True)


class Backfill(Demo):
    """Some days of the daily pipeline on a running stack."""

    def __init__(self, stack: Stack, days: int) -> None:
        super().__init__(stack, "sagemaker", dag_id=DAG_ID)
        # The latest day that has ended is the scheduler's own as soon as the DAG is switched on; days end at two.
        last = (datetime.now(UTC) - timedelta(hours=2)).date() - timedelta(days=2)
        self._days = [last - timedelta(days=days - 1 - at) for at in range(days)]

    def run(self) -> bool:
        """Put passages into dated prefixes and run all days, twice; False when a run failed."""
        self.provide()
        self._put()
        self._airflow.wait_for_dag(DAG_ID)
        return self._run("first", again=False) and self._run("again", again=True)

    def _put(self) -> None:
        with gzip.open(SAMPLE) as sample:
            for day in self._days:
                lines = b"".join(islice(sample, PASSAGES_A_DAY))
                self._s3.put_object(Bucket=DOCUMENTS, Key=f"daily/dt={day}/passages.jsonl", Body=lines)
        span = f"{self._days[0]} to {self._days[-1]}"
        console.print(f"{PASSAGES_A_DAY} passages in each of s3://{DOCUMENTS}/daily/dt={{{span}}}/")

    def _run(self, name: str, *, again: bool) -> bool:
        jobs, writes, started = self._jobs(), self._writes(), time.monotonic()
        behavior = "completed" if again else "failed"
        first, last = self._days[0], self._days[-1]
        backfill = self._airflow.backfill(DAG_ID, first, last, at_once=AT_ONCE, reprocess=behavior)
        self._airflow.wait_for_backfill(backfill, wait_s=WAIT_S)
        runs = self._airflow.call("GET", f"dags/{DAG_ID}/dagRuns", run_type="backfill", order_by="id", limit=100)
        shown = [run for run in runs["dag_runs"] if first <= _day(run) <= last]
        table = Table("day", "state", *SHOWN, box=None, pad_edge=False)
        for run in sorted(shown, key=_day):
            counts = self._counts(run)
            table.add_row(str(_day(run)), run["state"], *(str(counts.get(key, 0)) for key in SHOWN))
        console.print(f"\n{name}: {len(shown)} runs, {AT_ONCE} at once, {time.monotonic() - started:.0f} s")
        console.print(table)
        console.print(f"{self._jobs() - jobs} batch jobs submitted, {self._writes() - writes:,} index operations")
        return all(run["state"] == "success" for run in shown)

    def _counts(self, run: dict[str, Any]) -> dict[str, int]:
        tasks = self._airflow.tasks(DAG_ID, run["dag_run_id"])
        done = next((task for task in tasks if task["task_id"] == "reconcile" and task["state"] == "success"), None)
        return {} if done is None else dict(self._airflow.xcom(done)["counts"])


def _day(run: dict[str, Any]) -> date:
    return datetime.fromisoformat(run["logical_date"]).date()


def main() -> int:
    """Start the stack if it is not up, and backfill as many days as DAYS says."""
    try:
        return 0 if Backfill(Stack.up(), int(os.environ.get("DAYS") or 5)).run() else 1
    except (StackError, ValueError) as error:
        console.print(f"backfill: {error}", style="red")
        return 1


if __name__ == "__main__":
    sys.exit(main())
