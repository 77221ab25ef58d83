"""Tables printed at the end of a command. Each location is on its own line, so it can be copied."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from opensearch_batch.core.types.counts import SourceCounts

PROGRAM = ["python", "-m", "opensearch_batch"]


def counts_table(counts: Mapping[str, int]) -> Table:
    """Return a table of counts."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in counts.items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    return table


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
    """Print the location of dead letters and the command that replays them."""
    console.print(f"dead letters: {location}")
    console.print("fix their cause, then run:")
    console.print(f"  {shlex.join([*PROGRAM, 'replay', location, *arguments])}")
