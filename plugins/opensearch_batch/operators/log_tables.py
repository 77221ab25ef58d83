"""Logs tables of counts, one log line for each row, so that no line is wide."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.storage.dead_letters import MAX_REASON_CHARS, most_common_reasons, write_summary
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.s3 import S3Objects

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

# Counts that are shown even if they are 0.
ALWAYS = frozenset({"read", "indexed", "nulls", "filtered", "dead_letters"})
LAST_ROW = "dead_letters"


def log_counts(
    log: Logger,
    title: str,
    counts: msgspec.Struct,
    objects: Objects | None = None,
    *dead_letters: str | None,
) -> None:
    """Log counts as a table, below it the most common reasons of the dead letters at these locations.

    An error of the store is logged and does not fail the task.
    """
    log.info("%s", title)
    rows = {name: count for name, count in msgspec.structs.asdict(counts).items() if isinstance(count, int)}
    rows |= {LAST_ROW: rows.pop(LAST_ROW)} if LAST_ROW in rows else {}
    for name, count in rows.items():
        if count or name in ALWAYS:
            log.info("  %-14s%12s", name.replace("_", " "), f"{count:,}")
    locations = [location for location in dead_letters if location]
    if objects is None or not locations:
        return
    try:
        reasons = most_common_reasons(objects, locations)
    except BatchError as error:
        log.info("    could not read the reasons: %s", error)
    else:
        for dead_letter, count in reasons:
            log.info("    %12s  %s", f"{count:,}", dead_letter.reason[:MAX_REASON_CHARS])
    for location in locations:
        log.info("  dead letters in %s", location)


def dead_letters_url(store: S3Objects, location: str) -> str:
    """Write the summary of dead letters; return the URL that shows it in a browser, empty if it cannot be written."""
    try:
        return store.browse_url(write_summary(store, location))
    except BatchError as error:
        logging.getLogger(__name__).warning("no link to the dead letters: %s", error)
        return ""
