"""The report of an ingest."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.types.counts import IngestCounts

DONE, DONE_WITH_DEAD_LETTERS = "DONE", "DONE_WITH_DEAD_LETTERS"


class IngestReport(msgspec.Struct, frozen=True):
    """The result of an ingest: `state` is DONE or DONE_WITH_DEAD_LETTERS, `dead_letters` their location.

    `index` is the index, or the prefix of the objects, that was written to.
    """

    index: str
    state: str
    counts: IngestCounts
    dead_letters: str | None = None
    remarks: list[str] = []
