"""The metrics of pipelines: the table of their names, and what a run, a shard and a job measure.

A metric is measured once a run, a shard or a job, never once a record, and 0 is a measurement: a counter exists before
it first counts something. Tags have few values. A sum over any tag is meaningful, because a back end without tags adds
up all measurements of a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from opensearch_batch.core.jobs.job_records import PAID, SubmitDecision
from opensearch_batch.core.runs.run_account import RunAccount
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import DELETIONS, REPAIR, Shard

# Every measurement has these tags. NO_SERVICE is the service of a pipeline without jobs.
SHARED_TAGS, NO_SERVICE = ("pipeline", "service"), "none"
# What becomes of a record: counts of a run.
OUTCOMES = (
    "indexed", "unchanged", "duplicates", "tombstones", "superseded", "filtered", "unrouted", "dropped", "dead_letters",
    "waiting",
)  # fmt: skip


class Metric(msgspec.Struct, frozen=True):
    """A metric: `stages` measure it; `own_tags` are those beside SHARED_TAGS, with all their values."""

    name: str
    kind: Literal["counter", "timer"]
    unit: Literal["records", "documents", "bytes", "seconds"]
    stages: str
    meaning: str
    own_tags: Mapping[str, tuple[str, ...]] = {}


class Measurement(NamedTuple):
    """A value of a metric in its unit, and the values of its own tags."""

    metric: Metric
    value: float
    tags: Mapping[str, str] = {}


RECORDS = Metric(
    "opensearch_batch.records",
    "counter",
    "records",
    "reconcile",
    "records that runs read, by outcome; a Data Prepper pipeline counts a record once for each of its sinks",
    {"outcome": OUTCOMES},
)
DEAD_LETTERS = Metric(
    "opensearch_batch.dead_letters",
    "counter",
    "records",
    "reconcile",
    "dead letters of runs, by the stage that wrote them",
    {"stage": ("prepare", "ingest")},
)
PAID_RECORDS = Metric(
    "opensearch_batch.paid_records",
    "counter",
    "records",
    "batch_predict, repair",
    "records of submitted jobs, counted at each submission; 0 for a job of a Data Prepper pipeline",
    {"stage": ("batch_predict", "repair")},
)
DOCUMENTS = Metric(
    "opensearch_batch.documents",
    "counter",
    "documents",
    "ingest",
    "documents written to sinks, and documents deleted",
    {"operation": ("write", "delete")},
)
DOCUMENT_BYTES = Metric(
    "opensearch_batch.document_bytes",
    "counter",
    "bytes",
    "ingest",
    "bytes of the documents that were sent, uncompressed, without repeats",
)
DOCUMENT_RETRIES = Metric(
    "opensearch_batch.document_retries",
    "counter",
    "documents",
    "ingest",
    "documents that were sent again, because the index was busy or did not respond",
)
JOB_WAIT = Metric(
    "opensearch_batch.job_wait",
    "timer",
    "seconds",
    "ingest",
    "time from the submission of a completed job to its end",
)
METRICS = (RECORDS, DEAD_LETTERS, PAID_RECORDS, DOCUMENTS, DOCUMENT_BYTES, DOCUMENT_RETRIES, JOB_WAIT)


def run_measurements(account: RunAccount, *, dead_in_prepare: int) -> Iterator[Measurement]:
    """Yield the outcomes of a run's records; `dead_in_prepare` is the number of dead letters that `prepare` wrote."""
    for outcome in OUTCOMES:
        yield Measurement(RECORDS, getattr(account.counts, outcome, 0), {"outcome": outcome})
    yield Measurement(DEAD_LETTERS, dead_in_prepare, {"stage": "prepare"})
    yield Measurement(DEAD_LETTERS, account.counts.dead_letters - dead_in_prepare, {"stage": "ingest"})


def submission_measurements(shard: Shard, decision: SubmitDecision) -> Iterator[Measurement]:
    """Yield the records of a shard if its job was submitted, not found."""
    if decision in PAID:
        yield Measurement(PAID_RECORDS, shard.records, {"stage": REPAIR if shard.id == REPAIR else "batch_predict"})


def ingest_measurements(shard: Shard, *reports: IngestReport) -> Iterator[Measurement]:
    """Yield what the ingest of a shard wrote, given its reports, one for each sink."""
    operation = "delete" if shard.id == DELETIONS else "write"
    yield Measurement(DOCUMENTS, sum(report.counts.indexed for report in reports), {"operation": operation})
    yield Measurement(DOCUMENT_BYTES, sum(report.traffic.sent_bytes for report in reports))
    yield Measurement(DOCUMENT_RETRIES, sum(report.traffic.resent for report in reports))


def wait_measurements(record: JobRecord | None, *, since: float) -> Iterator[Measurement]:
    """Yield how long a batch job took, unless it ended before its run began (`since`, epoch seconds)."""
    if record is not None and record.end is not None and not record.realtime and record.end.at >= since:
        yield Measurement(JOB_WAIT, record.end.at - record.intended_at)
