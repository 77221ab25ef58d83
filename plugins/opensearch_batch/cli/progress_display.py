"""Shows progress if stderr is a terminal, not in a log file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from opensearch_batch.core.ingest.replay import ReplayReport
from opensearch_batch.core.storage.compression import COMPRESSED
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.rows import Source


@contextmanager
def progress_bar(
    what: str, total_bytes: int | None = None
) -> Iterator[Callable[[IngestCounts | ReplayReport, int], None]]:
    """Show a progress bar on stderr while in this context; yield a function that updates it.

    `total_bytes` is None if the number of bytes to read is unknown.
    """
    if not is_terminal():
        yield lambda counts, read_bytes: None  # noqa: ARG005 - nothing is shown
        return
    # Importing and drawing take longer than a small request, so both are done on a terminal only.
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
    task, began_at = bar.add_task(what, total=total_bytes, counts=""), time.monotonic()

    def show(counts: IngestCounts | ReplayReport, read_bytes: int) -> None:
        rate = (counts.indexed + counts.unchanged) / max(time.monotonic() - began_at, 0.001)
        text = f"{counts.read:,} rows  {rate:,.0f} documents/s  {counts.dead_letters:,} dead letters"
        bar.update(task, completed=read_bytes, counts=text)

    with bar:
        yield show


def is_terminal() -> bool:
    """Return whether stderr is a terminal, whatever the settings that force colours are."""
    return sys.stderr.isatty()


def bytes_to_read(sources: Sequence[Source]) -> int | None:
    """Return the size of the sources, None if some are compressed."""
    objects = [each for source in sources for each in source.objects]
    if any(each.uri.endswith(COMPRESSED) for each in objects):
        return None
    return sum(each.size_bytes for each in objects)
