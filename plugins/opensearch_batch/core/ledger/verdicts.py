"""Verdicts of the records of one shard: what its ingest reports, and `reconcile` commits to the record ledger."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.ledger.rows import RecordState
from opensearch_batch.core.types.counts import IngestReport

# The object and the line of a record that was not indexed, and what it became.
RecordVerdict = tuple[str, int, RecordState]


class Verdicts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The verdicts of the staged records of a shard: each one is indexed, except the `exceptions` and the unanswered.

    `shard_digest` is `Manifest.shard_digest`. An exception has the object, the line and the state of its record.
    `unanswered` counts the records without a prediction, which `repair` submits again; `reasons` are the reasons of the
    service, each with its number of records.
    """

    shard_digest: str = msgspec.field(name="part")
    exceptions: list[RecordVerdict] = []
    unanswered: int = 0
    reasons: dict[str, int] = {}


class ShardReport(IngestReport, frozen=True, kw_only=True):
    """The report of the ingest of one shard, with the verdicts of its records."""

    verdicts: Verdicts
