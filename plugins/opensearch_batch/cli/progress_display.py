"""Shows progress on a terminal; a log file or a pipe gets none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.rows import Source

if TYPE_CHECKING:
    from rich.progress import Progress

COMPRESSED = (".gz", ".zst")


class ProgressDisplay:
    """A progress bar on stderr, where that is a terminal.

    Args:
        what: name of the task.
        total_bytes: bytes to read, None if unknown.
        clock: seconds; injected by tests.
    """

    def __init__(
        self, what: str, *, total_bytes: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bar = _bar(what, total_bytes) if is_watched() else None
        self._clock = clock
        self._began_at = clock()

    def show(self, *, rows: int, documents: int, dead_letters: int, read_bytes: int | None = None) -> None:
        """Show the counts so far."""
        if self._bar is None:
            return
        passed_s = self._clock() - self._began_at
        rate = documents / passed_s if passed_s > 0 else 0.0
        counts = f"{rows:,} rows  {rate:,.0f} documents/s  {dead_letters:,} dead letters"
        self._bar.update(self._bar.task_ids[0], completed=read_bytes, counts=counts)

    def show_ingest(self, counts: IngestCounts, read_bytes: int) -> None:
        """Show the counts of an ingest so far."""
        documents = counts.indexed + counts.unchanged
        self.show(rows=counts.read, documents=documents, dead_letters=counts.dead_letters, read_bytes=read_bytes)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar(what: str, total_bytes: int | None) -> Progress:
    # Loading and drawing take longer than a small request, so they are done on a terminal only.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    amount = [] if total_bytes is None else [DownloadColumn()]
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *amount,
        TextColumn("{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task(what, total=total_bytes, counts="")
    return bar


def is_watched() -> bool:
    """Return whether stderr is a terminal, whatever settings force colours."""
    return sys.stderr.isatty()


def bytes_to_read(sources: Sequence[Source]) -> int | None:
    """Return the size of the sources, None if some are compressed."""
    objects = [found for source in sources for found in source.objects]
    if any(found.uri.endswith(COMPRESSED) for found in objects):
        return None
    return sum(found.size_bytes for found in objects)
