"""What people read at the end: few lines, and every location whole on a line of its own, ready to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from opensearch_batch.core.types.counts import SourceCounts

PROGRAM = ["python", "-m", "opensearch_batch"]


def counts_table(counts: Mapping[str, int]) -> Table:
    """Return counts under one another."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in counts.items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    return table


def sources_table(sources: Sequence[SourceCounts]) -> Table:
    """Return the counts of each source."""
    table = Table(box=None, pad_edge=False)
    table.add_column("source", overflow="fold")
    names = ("read", "blank", "dead_letters", "duplicates", "unmatched")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for source in sources:
        table.add_row(source.source, *(f"{getattr(source, name):,}" for name in names))
    return table


def show_dead_letters(console: Console, location: str, arguments: Sequence[str]) -> None:
    """Say where dead letters lie, and what to do with them."""
    console.print(f"dead letters: {location}")
    console.print("mend their cause, then:")
    console.print(f"  {shlex.join([*PROGRAM, 'replay', location, *arguments])}")
