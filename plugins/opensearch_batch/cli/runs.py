"""runs: lists the newest runs of a pipeline, or of all pipelines and of the requests in their work prefixes."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.command import Account
from opensearch_batch.cli.pipeline_argument import REQUESTS, LayoutsArgument, layouts_of
from opensearch_batch.cli.run_tables import runs_table
from opensearch_batch.core.runs.run_lists import SHOWN_RUNS, recent_runs
from opensearch_batch.core.runs.run_summary import RunSummary
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import DONE


class RunsAccount(Account, frozen=True, kw_only=True):
    """The newest runs, the newest first; `remarks` name the pipeline files that cannot be read."""

    runs: list[RunSummary] = msgspec.field(default_factory=list)
    remarks: list[str] = msgspec.field(default_factory=list)


class Runs(ClientCommand[RunsAccount]):
    """List the newest runs that had something to do, with their counts.

    Example: opensearch-batch runs books --limit 7
    """

    when_stopped = "nothing was changed"

    def __init__(
        self,
        *,
        pipeline: LayoutsArgument = None,
        limit: Annotated[int, typer.Option(min=1, max=1_000, help="Number of runs.")] = SHOWN_RUNS,
        clients: ClientFactory,
    ) -> None:
        super().__init__(RunsAccount(), clients)
        self._pipeline = pipeline
        self._limit = limit

    def execute(self) -> None:
        layouts, remarks = layouts_of(self._pipeline)
        if self._pipeline is None:
            layouts += [Layout(root, REQUESTS) for root in sorted({layout.root for layout in layouts})]
        reader = self._reader()
        runs = [run for layout in layouts for run in recent_runs(reader, layout, limit=self._limit)]
        runs.sort(key=lambda run: -run.started_at)
        self.update(state=DONE, runs=runs[: self._limit], remarks=remarks)

    def show(self, console: Console) -> None:
        if self.account.runs:
            console.print(runs_table(self.account.runs))
        else:
            console.print("no run has had anything to do")
        for run in self.account.runs:
            for remark in run.remarks:
                console.print(f"- {run.pipeline} {run.run_id}: {remark}")
        for remark in self.account.remarks:
            console.print(f"- {remark}")
