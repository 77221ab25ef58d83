"""jobs: lists the jobs of a pipeline, or of all pipelines, that are in flight."""

from __future__ import annotations

import msgspec
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.command import Account
from opensearch_batch.cli.pipeline_argument import LayoutsArgument, layouts_of
from opensearch_batch.cli.run_tables import jobs_table
from opensearch_batch.core.runs.job_state import JobState
from opensearch_batch.core.runs.run_lists import running_jobs
from opensearch_batch.core.types.counts import DONE


class JobsAccount(Account, frozen=True, kw_only=True):
    """The jobs in flight by pipeline; `remarks` name the pipeline files that cannot be read."""

    jobs: dict[str, list[JobState]] = msgspec.field(default_factory=dict)
    remarks: list[str] = msgspec.field(default_factory=list)


class Jobs(ClientCommand[JobsAccount]):
    """List the jobs that are in flight, with the counts that their service reports.

    Example: opensearch-batch jobs books
    """

    when_stopped = "the jobs continue"

    def __init__(self, *, pipeline: LayoutsArgument = None, clients: ClientFactory) -> None:
        super().__init__(JobsAccount(), clients)
        self._pipeline = pipeline

    def execute(self) -> None:
        layouts, remarks = layouts_of(self._pipeline)
        reader = self._reader()
        jobs = {layout.pipeline: running_jobs(reader, layout, max_reads=None).jobs for layout in layouts}
        self.update(state=DONE, jobs=jobs, remarks=remarks)

    def show(self, console: Console) -> None:
        for pipeline, jobs in self.account.jobs.items():
            console.print(f"{pipeline}: {len(jobs):,} jobs in flight")
            if jobs:
                console.print(jobs_table(jobs))
        for remark in self.account.remarks:
            console.print(f"- {remark}")
