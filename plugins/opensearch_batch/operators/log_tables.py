"""Tables of counts in a task's log, one line a row, so that a log viewer needs no wide lines."""

from __future__ import annotations

from collections.abc import Sequence
from logging import Logger

import msgspec

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.storage.dead_letters import commonest_reasons
from opensearch_batch.core.storage.objects import Objects

# Shown even if 0; other counts are shown if they are not.
ALWAYS = frozenset({"read", "indexed", "nulls", "filtered", "dead_letters"})
LAST = "dead_letters"


def log_counts(
    log: Logger,
    title: str,
    counts: msgspec.Struct,
    objects: Objects,
    dead_letters: Sequence[str],
) -> None:
    """Log counts as a table, below it the commonest reasons of the dead letters at these locations.

    The table is no part of the work: an error of the store becomes a line of it.
    """
    log.info("%s", title)
    rows = {name: count for name, count in msgspec.structs.asdict(counts).items() if isinstance(count, int)}
    rows |= {LAST: rows.pop(LAST)} if LAST in rows else {}
    for name, count in rows.items():
        if count or name in ALWAYS:
            log.info("  %-14s%12s", name.replace("_", " "), f"{count:,}")
    if not dead_letters:
        return
    try:
        reasons = commonest_reasons(objects, dead_letters)
    except BatchError as error:
        log.info("    reasons not read: %s", error)
    else:
        for reason, count in reasons:
            log.info("    %12s  %s", f"{count:,}", reason)
    for location in dead_letters:
        log.info("  dead letters in %s", location)
