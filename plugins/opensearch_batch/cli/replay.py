"""replay: sends dead letters again after a fix; those that succeed are removed from the queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from opensearch_batch.cli import options
from opensearch_batch.cli.clients import ClientFactory
from opensearch_batch.cli.command import Account, Command, run
from opensearch_batch.cli.progress_display import ProgressDisplay
from opensearch_batch.cli.request_file import RequestFile, absolute, read_request
from opensearch_batch.cli.tables import counts_table, show_dead_letters
from opensearch_batch.core.ingest import replay as core
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.types.counts import DONE, DONE_WITH_DEAD_LETTERS
from opensearch_batch.services.registry import row_errors


class ReplayAccount(Account, frozen=True, kw_only=True):
    """Result of a replay; `dead_letters` counts those that remain, at `dead_letters_location`."""

    queue: str | None = None
    index: str | None = None
    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    dead_letters_location: str | None = None


def replay(
    *,
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="Location of the dead letters, as reported.")],
    request: Annotated[
        str | None, typer.Option(help="Corrected request to use instead of the stored one; - for stdin.")
    ] = None,
    opensearch_url: options.OpenSearchUrl = None,
    user: options.User = None,
    ca_certs: options.CaCerts = None,
    insecure: options.Insecure = False,
    aws_region: options.AwsRegion = None,
    aws_service: options.AwsService = None,
    s3_endpoint: options.S3Endpoint = None,
    openai_base_url: options.OpenAIBaseUrl = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Send dead letters again, after their cause was fixed.

    Example: python -m opensearch_batch replay s3://bucket/_opensearch_batch/4f0c/dead_letters/
    """
    clients = ClientFactory(
        opensearch_url,
        user,
        str(ca_certs) if ca_certs else None,
        insecure,
        aws_region,
        aws_service,
        s3_endpoint,
        openai_base_url,
    )
    return run(Replay(queue, request, clients), as_json=as_json, debug=debug)


class Replay(Command[ReplayAccount]):
    """The replay command."""

    when_stopped = "the same command sends the remaining dead letters"

    def __init__(self, queue: str, request: str | None, clients: ClientFactory) -> None:
        super().__init__(ReplayAccount(queue=absolute(queue, Path.cwd())))
        self._request = request
        self._clients = clients

    def execute(self) -> None:
        """Send the dead letters."""
        file = read_request(self._request) if self._request else None
        credential = file.batch.credential if file else None
        self.secrets.keep_credential(credential)
        objects = self._clients.stores(credential)
        cluster = self._clients.cluster(self.secrets)
        with ProgressDisplay("replay") as display:

            def show_progress(report: core.ReplayReport) -> None:
                self._count(report)
                documents = report.indexed + report.unchanged
                display.show(rows=report.read, documents=documents, dead_letters=report.dead_letters)

            report = core.replay(
                self.account.queue or "",
                objects,
                cluster,
                request=_corrected(file),
                row_errors=row_errors(),
                on_progress=show_progress,
            )
        self._count(report)
        self.update(state=DONE_WITH_DEAD_LETTERS if report.dead_letters else DONE)

    def _count(self, report: core.ReplayReport) -> None:
        self.update(
            queue=report.queue,
            index=report.index,
            read=report.read,
            indexed=report.indexed,
            unchanged=report.unchanged,
            dead_letters=report.dead_letters,
            dead_letters_location=report.queue if report.dead_letters else None,
        )

    def show(self, console: Console) -> None:
        """Print the counts and what remains."""
        account = self.account
        console.print(f"{account.index}: {account.state} in {account.seconds:.1f} s")
        names = ("read", "indexed", "unchanged", "dead_letters")
        console.print(counts_table({name: getattr(account, name) for name in names}))
        if account.dead_letters_location:
            again = ["--request", self._request] if self._request else []
            show_dead_letters(console, account.dead_letters_location, [*again, *self._clients.as_arguments()])


def _corrected(file: RequestFile | None) -> IngestRequest | None:
    return file.batch.ingest if file else None
