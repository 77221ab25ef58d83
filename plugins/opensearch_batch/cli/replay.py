"""replay: sends dead letters again after a fix; those that succeed are removed from the queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.progress_display import progress_bar
from opensearch_batch.cli.request_file import absolute, read_request
from opensearch_batch.cli.tables import IndexAccount, show_dead_letters
from opensearch_batch.core.ingest.replay import ReplayReport, replay
from opensearch_batch.core.types.counts import DONE, DONE_WITH_DEAD_LETTERS
from opensearch_batch.services.registry import row_errors


class ReplayAccount(IndexAccount, frozen=True, kw_only=True):
    """Result of a replay; `dead_letters` counts those that remain, at `dead_letters_location`."""

    queue: str | None = None


class Replay(ClientCommand[ReplayAccount]):
    """Send dead letters again, after their cause was fixed.

    Example: opensearch-batch replay s3://bucket/_opensearch_batch/4f0c/dead_letters/
    """

    when_stopped = "the same command sends the remaining dead letters"

    def __init__(
        self,
        *,
        queue: Annotated[str, typer.Argument(metavar="QUEUE", help="Location of the dead letters, as reported.")],
        request: Annotated[
            str | None, typer.Option(help="Corrected request to use instead of the stored one; - for stdin.")
        ] = None,
        clients: ClientFactory,
    ) -> None:
        super().__init__(ReplayAccount(queue=absolute(queue, Path.cwd())), clients)
        self._request = request

    def execute(self) -> None:
        file = read_request(self._request) if self._request else None
        objects = self._stores(file.batch.credential if file else None)
        cluster = self._cluster()
        with progress_bar("replay") as show:

            def show_progress(report: ReplayReport) -> None:
                self._count(report)
                show(report, 0)

            report = replay(
                self.account.queue or "",
                objects,
                cluster,
                request=file.batch.ingest if file else None,
                row_errors=row_errors(),
                on_progress=show_progress,
            )
        self._count(report)
        self.update(state=DONE_WITH_DEAD_LETTERS if report.dead_letters else DONE)

    def _count(self, report: ReplayReport) -> None:
        location = report.queue if report.dead_letters else None
        self.update(**msgspec.structs.asdict(report), dead_letters_location=location)

    def show(self, console: Console) -> None:
        account = self.account
        account.show(console)
        if account.dead_letters_location:
            request = ["--request", self._request] if self._request else []
            show_dead_letters(console, account.dead_letters_location, [*request, *self._clients.as_arguments()])
