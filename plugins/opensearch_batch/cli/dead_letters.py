"""dead-letters: shows the dead letters of a run by reason, with samples."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.command import Account
from opensearch_batch.cli.pipeline_argument import LayoutArgument, RunArgument, layout_of
from opensearch_batch.cli.run_tables import reasons_table
from opensearch_batch.cli.tables import show_dead_letters
from opensearch_batch.core.runs.dead_letter_samples import (
    MAX_READ_LETTERS,
    SHOWN_LETTERS,
    DeadLettersOfRun,
    dead_letters_of_run,
)
from opensearch_batch.core.runs.run_lists import find_run
from opensearch_batch.core.storage.dead_letters import MAX_REASON_CHARS
from opensearch_batch.core.types.counts import DONE

SHOWN_LOCATIONS = 3


class DeadLettersAccount(Account, frozen=True, kw_only=True):
    """The dead letters of a run."""

    dead_letters: DeadLettersOfRun | msgspec.UnsetType = msgspec.UNSET


class DeadLetterList(ClientCommand[DeadLettersAccount]):
    """Show the dead letters of a run by reason, with samples of those that are there now.

    Example: opensearch-batch dead-letters books --reason mapper_parsing_exception
    """

    when_stopped = "nothing was changed"

    def __init__(
        self,
        *,
        pipeline: LayoutArgument,
        run: RunArgument = None,
        reason: Annotated[
            str | None, typer.Option(help="Text in the reason of the samples. Default: one sample of each reason.")
        ] = None,
        limit: Annotated[int, typer.Option(min=0, help="Number of samples.")] = SHOWN_LETTERS,
        search: Annotated[int, typer.Option(min=1, help="Dead letters to search for samples.")] = MAX_READ_LETTERS,
        clients: ClientFactory,
    ) -> None:
        super().__init__(DeadLettersAccount(), clients)
        self._pipeline, self._run = pipeline, run
        self._reason, self._limit, self._search = reason, limit, search

    def execute(self) -> None:
        layout, reader = layout_of(self._pipeline), self._reader()
        letters = dead_letters_of_run(
            reader,
            layout,
            find_run(reader, layout, self._run),
            reason=self._reason,
            limit=self._limit,
            max_letters=self._search,
            max_parts=None,
        )
        self.update(state=DONE, dead_letters=letters)

    def show(self, console: Console) -> None:
        letters = self.account.dead_letters
        if letters is msgspec.UNSET:
            return
        console.print(f"{letters.pipeline} {letters.run_key}: {letters.count:,} dead letters when the run counted them")
        if letters.reasons:
            console.print(reasons_table(letters.reasons))
        for letter in letters.samples:
            console.print(f"{letter.source} line {letter.line}: {letter.reason}")
            record = letter.record if letter.record is not None else f"base64 {letter.record_base64}"
            console.print(f"    {record[:MAX_REASON_CHARS]}")
        if not letters.is_complete:
            console.print(f"the samples are from the first {letters.read:,} dead letters that are there now")
        layout = layout_of(self._pipeline)
        for location in letters.locations[:SHOWN_LOCATIONS]:
            if layout.is_prepare_dead_letters(location):
                console.print(f"dead letters: {location}")
                console.print("correct them there, then start a run of the pipeline with this location as its source")
            else:
                show_dead_letters(console, location, self._clients.as_arguments())
        if (others := len(letters.locations) - SHOWN_LOCATIONS) > 0:
            console.print(f"and in {others:,} more locations, which --json names")
