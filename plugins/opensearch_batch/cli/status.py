"""status: shows one run with its stages, shards, jobs, counts and rates, once or until it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.command import Account
from opensearch_batch.cli.pipeline_argument import LayoutArgument, RunArgument, layout_of
from opensearch_batch.cli.progress_display import is_terminal
from opensearch_batch.cli.run_tables import run_lines
from opensearch_batch.core.runs.run_details import SHOWN_SHARDS, RunDetails, ShardPhase, run_details
from opensearch_batch.core.runs.run_lists import find_run
from opensearch_batch.core.types.counts import DONE, DONE_WITH_DEAD_LETTERS

WATCH_S = 2.0


class StatusAccount(Account, frozen=True, kw_only=True):
    """One run; the state is DONE_WITH_DEAD_LETTERS if it has ended with some."""

    run: RunDetails | None = None


class Status(ClientCommand[StatusAccount]):
    """Show a run with its stages, shards, jobs, counts and rates.

    Example: opensearch-batch status books --watch
    """

    when_stopped = "the run continues"

    def __init__(
        self,
        *,
        pipeline: LayoutArgument,
        run: RunArgument = None,
        watch: Annotated[
            bool, typer.Option("--watch", help="Show it again every two seconds, until it has ended.")
        ] = False,
        shards: Annotated[int, typer.Option(min=0, help="Number of shards to show.")] = SHOWN_SHARDS,
        state: Annotated[
            ShardPhase | None, typer.Option(help="State of the shards to show, like failed. Default: all.")
        ] = None,
        clients: ClientFactory,
    ) -> None:
        super().__init__(StatusAccount(), clients)
        self._pipeline = pipeline
        self._run = run
        self._watch = watch
        self._shards, self._state = shards, state

    def execute(self) -> None:
        layout, reader = layout_of(self._pipeline), self._reader()
        run_key = find_run(reader, layout, self._run)
        with _screen(shown=self._watch) as show:
            while True:
                details = run_details(reader, layout, run_key, state=self._state, limit=self._shards, max_reads=None)
                has_dead_letters = details.summary.has_ended and details.dead_letters
                self.update(state=DONE_WITH_DEAD_LETTERS if has_dead_letters else DONE, run=details)
                if details.summary.has_ended or not self._watch:
                    return
                show(details)
                time.sleep(WATCH_S)

    def show(self, console: Console) -> None:
        if self.account.run is not None:
            console.print(run_lines(self.account.run))


@contextmanager
def _screen(*, shown: bool) -> Iterator[Callable[[RunDetails], None]]:
    """Yield a function that shows a run in place of what it has shown before, on a terminal only."""
    if not (shown and is_terminal()):
        yield lambda details: None  # noqa: ARG005 - nothing is shown
        return
    from rich.live import Live

    with Live(console=Console(stderr=True, highlight=False, markup=False, emoji=False), transient=True) as live:
        yield lambda details: live.update(run_lines(details), refresh=True)
