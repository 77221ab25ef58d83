"""ingest: runs a `_batch_ingestion` request. A repeated request writes nothing, an interrupted one resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.command import Command
from opensearch_batch.cli.preview import Preview
from opensearch_batch.cli.progress_display import bytes_to_read, is_terminal, progress_bar
from opensearch_batch.cli.request_file import RequestFile, absolute, default_work_prefix, read_request
from opensearch_batch.cli.tables import IndexAccount, show_dead_letters, sources_table
from opensearch_batch.core.ingest.join import MEMORY_BYTES
from opensearch_batch.core.ingest.request_ingest import find_sources, run_batch_ingestion
from opensearch_batch.core.types.counts import IngestCounts, SourceCounts
from opensearch_batch.services.registry import row_errors

MIB = 1 << 20


class IngestAccount(IndexAccount, frozen=True, kw_only=True):
    """Result of a request; the counts are those of `IngestCounts`."""

    unmatched: int = 0
    joined: int = 0
    blank: int = 0
    nulls: int = 0
    sources: list[SourceCounts] = msgspec.field(default_factory=list)
    remarks: list[str] = msgspec.field(default_factory=list)


class Settings(msgspec.Struct, frozen=True):
    """Options of an ingest."""

    work_prefix: Annotated[
        str | None,
        typer.Option(
            help="Prefix for progress and dead letters. Default: beside the first source.", show_default=False
        ),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the request and show the first documents; write nothing.")
    ] = False
    force: Annotated[bool, typer.Option("--force", help="Write all documents again.")] = False
    memory_mb: Annotated[int, typer.Option(min=1, help="MiB of memory for rows that wait to be joined.")] = (
        MEMORY_BYTES // MIB
    )
    spill_folder: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder for rows that exceed --memory-mb. Default: a temporary folder."
        ),
    ] = None


def ingest(
    *,
    request: Annotated[str, typer.Argument(metavar="REQUEST.json", help="Request file, or - for stdin.")],
    clients: ClientFactory,
    settings: Settings,
) -> Command[Any]:
    """Run a _batch_ingestion request: index the rows of its sources.

    Example: opensearch-batch ingest request.json --opensearch-url https://localhost:9200 --user worker
    """
    return Preview(request, clients) if settings.dry_run else Ingestion(request, clients, settings)


class Ingestion(ClientCommand[IngestAccount]):
    """The ingest command."""

    when_stopped = "the same command resumes"

    def __init__(self, request: str, clients: ClientFactory, settings: Settings) -> None:
        super().__init__(IngestAccount(), clients)
        self._request = request
        self._settings = settings
        self._replay_arguments = clients.as_arguments()
        if settings.force:
            self.when_stopped = "the same command without --force resumes"

    def execute(self) -> None:
        file = read_request(self._request)
        batch, settings = file.batch, self._settings
        self.update(index=batch.ingest.index)
        self._replay_arguments = self._arguments_of_replay(file)
        objects = self._stores(batch.credential)
        cluster = self._cluster()
        work_prefix = (
            absolute(settings.work_prefix, Path.cwd())
            if settings.work_prefix
            else batch.work_prefix or default_work_prefix(batch)
        )
        # `run_batch_ingestion` lists the sources again; this listing is only for the progress bar.
        total_bytes = bytes_to_read(find_sources(batch, objects)) if is_terminal() else None
        with progress_bar(batch.ingest.index, total_bytes) as show:

            def show_progress(counts: IngestCounts, read_bytes: int) -> None:
                self._count(counts)
                show(counts, read_bytes)

            report = run_batch_ingestion(
                batch,
                objects,
                cluster,
                work_prefix=work_prefix,
                row_errors=row_errors(),
                force=settings.force,
                memory_bytes=settings.memory_mb * MIB,
                spill_folder=settings.spill_folder,
                on_progress=show_progress,
            )
        self._count(report.counts)
        self.update(state=report.state, dead_letters_location=report.dead_letters, remarks=report.remarks)

    def _count(self, counts: IngestCounts) -> None:
        # A request has no routes, processors or run version, so the account has no counts for them.
        shown = set(IngestCounts.__struct_fields__) & set(IngestAccount.__struct_fields__)
        self.update(**{name: getattr(counts, name) for name in shown})

    def _arguments_of_replay(self, file: RequestFile) -> list[str]:
        """Return the options of a replay; they include the request if its credential is needed for the dead letters."""
        credential = file.batch.credential
        request = ["--request", file.name] if credential and credential.secret_key else []
        return [*request, *self._clients.as_arguments()]

    def show(self, console: Console) -> None:
        account = self.account
        account.show(console, "joined", "unmatched", "blank", "nulls")
        if len(account.sources) > 1:
            console.print(sources_table(account.sources))
        for remark in account.remarks:
            console.print(f"remark: {remark}")
        if account.dead_letters_location:
            show_dead_letters(console, account.dead_letters_location, self._replay_arguments)
