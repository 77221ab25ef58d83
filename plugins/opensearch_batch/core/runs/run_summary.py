"""Summaries of runs: one small object a run, so that the newest runs of a pipeline are one listing and few reads.

Its name, ``<work_prefix>/<pipeline>/runs/<inverted start>-<run key>.json``, never changes, and a listing returns the
newest run first. `prepare` writes it when it has announced its manifest, `reconcile` replaces it when it has the
account. Every number in it is taken from these two, so it may be deleted: then the run is only missing in lists.
"""

from __future__ import annotations

import msgspec

from opensearch_batch.core.runs.run_account import ShardRunCounts
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.manifest import PrepareCounts


class RunSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run in a list of runs. All times are epoch seconds.

    Attributes:
        run_id: the id of the DAG run; empty for a run of an older version of this package.
        started_at: when `prepare` began for the first time.
        ended_at: when `reconcile` had the account; None before, and for ever if the run failed. Only Airflow knows
            whether a run that has not ended still runs.
        is_scan: the run is a scan of a Data Prepper pipeline. `prepared` has only its `objects`, of which it `opened`
            the new ones, and `documents` is 0, because nobody knows the number of rows.
        is_trial: the run does not commit to the record ledger.
        shards: the number of shards, or of the work items of a scan.
        jobs: the number of those that need a job.
        documents: the number of staged records and deletions.
        prepared: counts of the source, with the six classes of the ledger (`new`, `input_changed`, `other_changed`,
            `unchanged`, `duplicate`, `tombstone`).
        counts: the counts of the account, which reconcile; None until the run has ended.
        dead_letters: the dead letters of all stages so far: of `prepare` until the run has ended, then of all.
        reasons: the dead letters by reason, the most common first. A later replay does not change them.
    """

    pipeline: str
    run_key: str
    run_id: str = ""
    started_at: float = 0.0
    ended_at: float | None = None
    is_scan: bool = False
    is_trial: bool = False
    source: str = ""
    scope: str = ""
    index: str = ""
    service: str = ""
    model_id: str = ""
    shards: int = 0
    jobs: int = 0
    documents: int = 0
    prepared: PrepareCounts = PrepareCounts()
    counts: ShardRunCounts | None = None
    dead_letters: int = 0
    reasons: list[LetterReason] = []
    remarks: list[str] = []

    @property
    def has_ended(self) -> bool:
        """Whether the run has an account."""
        return self.ended_at is not None
