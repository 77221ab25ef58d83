"""Whoever looks on sees how far it is; a log file or a pipe gets no progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from opensearch_batch.core.progress import IngestCounts
from opensearch_batch.core.rows import Source

COMPRESSED = (".gz", ".zst")


class Watch:
    """A progress bar on stderr, where that is a terminal.

    Args:
        what: what is being done.
        total_bytes: how much there is to read, None when nobody knows.
        clock: seconds; given by tests.
    """

    def __init__(
        self, what: str, *, total_bytes: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        console = Console(stderr=True)
        amount = [] if total_bytes is None else [DownloadColumn()]
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *amount,
            TextColumn("{task.fields[counts]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total_bytes, counts="")
        self._clock = clock
        self._began_at = clock()

    def see(self, *, rows: int, documents: int, dead_letters: int, read_bytes: int | None = None) -> None:
        """Show how far it is."""
        passed_s = self._clock() - self._began_at
        rate = documents / passed_s if passed_s > 0 else 0.0
        counts = f"{rows:,} rows  {rate:,.0f} documents/s  {dead_letters:,} dead letters"
        self._bar.update(self._task, completed=read_bytes, counts=counts)

    def see_ingest(self, counts: IngestCounts, read_bytes: int) -> None:
        """Show how far an ingest is."""
        documents = counts.indexed + counts.unchanged
        self.see(rows=counts.read, documents=documents, dead_letters=counts.dead_letters, read_bytes=read_bytes)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def bytes_to_read(sources: Sequence[Source]) -> int | None:
    """Return how many bytes the sources have, None when some are compressed and nobody knows."""
    objects = [found for source in sources for found in source.objects]
    if any(found.uri.endswith(COMPRESSED) for found in objects):
        return None
    return sum(found.size_bytes for found in objects)
