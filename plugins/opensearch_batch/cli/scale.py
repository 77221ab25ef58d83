"""scale: plans runs that are too large to be tried, from assumptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from opensearch_batch.cli.command import Account, Command
from opensearch_batch.core.pipeline.scale import SHARE, Assumptions, ScalePlan, plan, read_assumptions
from opensearch_batch.core.types.counts import DONE

UNKNOWN, IMPOSSIBLE = "unknown", "none is enough"


class ScaleAccount(Account, frozen=True, kw_only=True):
    """The plans, in the order of the assumptions."""

    plans: Sequence[ScalePlan] = ()


class Scale(Command[ScaleAccount]):
    """Plan runs of any size from assumptions: tasks, hours, workers, requests, bytes, jobs and cost.

    Contacts no server. Example: opensearch-batch scale --assume include/samples/scale.yaml
    """

    def __init__(
        self,
        *,
        assume: Annotated[
            Path | None,
            typer.Option("--assume", metavar="FILE", help="YAML file of assumptions; others have their defaults."),
        ] = None,
    ) -> None:
        super().__init__(ScaleAccount())
        self._path = assume

    def execute(self) -> None:
        given = read_assumptions(self._path) if self._path else Assumptions()
        self.update(state=DONE, plans=[plan(records, given) for records in given.records])

    def show(self, console: Console) -> None:
        """Print one column for each number of records."""
        table = Table(box=None, pad_edge=False)
        table.add_column("records")
        for each in self.account.plans:
            table.add_column(f"{each.records:,}", justify="right")
        for label, cell in ROWS:
            table.add_row(label, *map(cell, self.account.plans))
        console.print(table)


def _cost(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.2f}"


def _needed(value: int | None) -> str:
    return IMPOSSIBLE if value is None else f"{value:,}"


ROWS: list[tuple[str, Callable[[ScalePlan], str]]] = [
    ("new or changed", lambda each: f"{each.changed:,}"),
    ("objects", lambda each: f"{each.objects:,}"),
    ("splits of prepare", lambda each: f"{each.splits:,}"),
    ("jobs", lambda each: f"{each.jobs:,}"),
    ("prepare, hours", lambda each: f"{each.prepare_hours:.2f}"),
    ("service, hours", lambda each: f"{each.service_hours:.2f}"),
    ("ingest in parallel, hours", lambda each: f"{each.ingest_hours:.2f}"),
    ("commit, hours", lambda each: f"{each.commit_hours:.2f}"),
    ("longer than the service, hours", lambda each: f"{each.added_hours:.2f} ({each.share:.0%})"),
    (f"cores needed for {SHARE:.0%}", lambda each: _needed(each.cores_needed)),
    ("memory of compare, GB a scope", lambda each: f"{each.compare_gb:.1f}"),
    ("S3 requests that write", lambda each: f"{each.puts:,}"),
    ("S3 requests that read", lambda each: f"{each.gets:,}"),
    ("work prefix during the run, GB", lambda each: f"{each.work_gb:,.1f}"),
    ("ledger and predictions, GB", lambda each: f"{each.stored_gb:,.1f}"),
    ("cost of the service", lambda each: _cost(each.service_cost)),
    ("cost of S3 requests", lambda each: _cost(each.request_cost)),
    ("cost of ledger and predictions, a month", lambda each: _cost(each.storage_cost_a_month)),
]
