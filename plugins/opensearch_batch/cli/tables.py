"""Tables and messages printed at the end of a command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from opensearch_batch.cli.command import Account
from opensearch_batch.core.types.counts import SourceCounts

_ALWAYS_SHOWN = ("read", "indexed", "unchanged", "dead_letters")
PROGRAM = ["opensearch-batch"]


class IndexAccount(Account, frozen=True, kw_only=True):
    """Result of a command that writes to an index."""

    index: str | None = None
    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    filtered: int = 0
    superseded: int = 0
    dead_letters: int = 0
    dead_letters_location: str | None = None

    def show(self, console: Console, *more: str) -> None:
        """Print state, duration and counts; `more`, `filtered` and `superseded` only if they are not 0."""
        console.print(f"{self.index}: {self.state} in {self.seconds:.1f} s")
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column()
        table.add_column(justify="right")
        for name in (*_ALWAYS_SHOWN, *(name for name in (*more, "filtered", "superseded") if getattr(self, name))):
            table.add_row(name.replace("_", " "), f"{getattr(self, name):,}")
        console.print(table)


def sources_table(sources: Sequence[SourceCounts]) -> Table:
    """Return a table of the counts of each source."""
    table = Table(box=None, pad_edge=False)
    table.add_column("source", overflow="fold")
    names = ("read", "blank", "dead_letters", "duplicates", "unmatched")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for source in sources:
        table.add_row(source.source, *(f"{getattr(source, name):,}" for name in names))
    return table


def show_dead_letters(console: Console, location: str, arguments: Sequence[str]) -> None:
    """Print the location of dead letters, and the command that replays them, on lines that can be copied."""
    console.print(f"dead letters: {location}")
    console.print("fix their cause, then run:")
    console.print(f"  {shlex.join([*PROGRAM, 'replay', location, *arguments])}")
