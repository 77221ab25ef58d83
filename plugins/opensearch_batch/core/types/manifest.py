"""The manifest of a run: its source, shards and counts. A run fails if its counts do not reconcile.

The files of a run have the prefix ``<work_prefix>/<pipeline>/<run_key>/``; `core.storage.layout` names all of them.
All pipelines share the files below ``<work_prefix>/jobs/`` (`core.jobs.job_records`), and all runs of a pipeline share
its record ledger and its prediction store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.types.datasets import RunDatasets
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.vector_field import VectorField

# Placeholder in a shard's `output` for the name of its job.
JOB_NAME = "<job>"
# The id of the shard that has the deletions of a run.
DELETIONS = "deletions"
# The id of the shard that has the records without a prediction, which `repair` stages again.
REPAIR = "repair"


class Shard(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one ingest writes, and the batch job that it needs.

    `id` is the position of the shard in the run, `DELETIONS`, `REPAIR`, or the id of a work item of a Data Prepper
    scan. `job` is the key of its job, empty if no record needs one. `input` is the input file of the job, with
    `records` lines and `bytes` bytes. `staged`, and then `more_staged`, are the files of the `documents` records, or
    deletions, that the ingest writes; a scan stages nothing. `output` is the configured location of the job's output,
    with `JOB_NAME` for the name of the job; if it is empty, the output is written to the folder of the job. `etag` is
    the ETag of `input` if that is the user's own object, which may change (else empty). `realtime`: the records are
    sent one by one through ``_predict`` instead of a job. Tasks pass shards to each other through XCom.
    """

    id: str
    job: str = ""
    input: str = ""
    records: int = 0
    bytes: int = 0
    staged: str = ""
    documents: int = 0
    output: str = ""
    etag: str = ""
    realtime: bool = False
    more_staged: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """All staged files, in the order of their records."""
        return [*([self.staged] if self.staged else []), *self.more_staged]


class ShardGroup(msgspec.Struct, frozen=True):
    """The shards of one mapped task: one, unless a run has very many shards; none if the task has nothing to do.

    `id` names the first and the last shard, `records` are the lines of their jobs, `documents` their staged records.
    """

    id: str = ""
    records: int = 0
    documents: int = 0
    shards: tuple[Shard, ...] = ()

    @staticmethod
    def of(shards: Sequence[Shard]) -> ShardGroup:
        """Return the group of these shards."""
        ids = dict.fromkeys((shards[0].id, shards[-1].id))
        records, documents = sum(shard.records for shard in shards), sum(shard.documents for shard in shards)
        return ShardGroup(" to ".join(ids), records, documents, tuple(shards))


class PrepareCounts(msgspec.Struct, frozen=True):
    """Counts of a run's source: objects, lines and classes of records.

    `objects` are listed; the `opened` ones of them changed, and were read. ``read == records + dead_letters``; `read`
    does not include `blank` lines. ``records + promoted`` is the sum of the classes `new`, `input_changed`,
    `other_changed`, `unchanged`, `duplicate` and `tombstone`; the `promoted` records are in objects that did not
    change. ``before == kept + removed`` counts documents of the ledger. `deleted` counts all staged deletions, also
    those of changed routings and of an earlier run that failed. `paid` counts the predictions to pay for. New or
    changed records are staged, except those `waiting` for a later run: their object changed meanwhile, they are too few
    for a job, or a `rebuild` found no prediction for them.
    """

    objects: int = 0
    opened: int = 0
    read: int = 0
    records: int = 0
    dead_letters: int = 0
    blank: int = 0
    new: int = 0
    input_changed: int = 0
    other_changed: int = 0
    unchanged: int = 0
    duplicate: int = 0
    tombstone: int = 0
    promoted: int = 0
    removed: int = 0
    kept: int = 0
    before: int = 0
    deleted: int = 0
    paid: int = 0
    waiting: int = 0

    def reconcile(self, location: str) -> None:
        """Raise FatalError, which begins with `location`, unless every line and earlier document is counted once."""
        classes = self.new + self.input_changed + self.other_changed + self.unchanged + self.duplicate + self.tombstone
        if self.read != self.records + self.dead_letters or self.records + self.promoted != classes:
            raise FatalError(
                f"{location}: read {self.read} lines, but counted {self.records} records, {self.dead_letters} dead "
                f"letters, {self.promoted} promoted records and {classes} records in classes"
            )
        if self.before != self.kept + self.removed:
            raise FatalError(
                f"{location}: the ledger had {self.before} documents, but {self.kept} are kept and {self.removed} are "
                "removed"
            )


class ScopeClaim(msgspec.Struct, frozen=True):
    """A run's claim on its scope. `version` is the external version of its deletions; documents have the next one."""

    version: int
    run_key: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The shards and counts of one run of prepare.

    `run_id` is the id of the DAG run, whose `prepare` began for the first time at `started_at` (epoch seconds).
    `scope` names the part of the pipeline that only one run writes at a time. `claim` is None for a trial run, which
    deletes nothing and does not change the ledger; `version` is the external version of the run's documents.
    `vectors` are the mapped vector fields of the index. `parameters` are the connector's parameters, overridden by
    those of the pipeline. `inputs` are the paths of the model's inputs. `attempt` differs for each run of `prepare`.
    `reasons` are those of the dead letters of `prepare`.
    A run that does not pay leaves records without a prediction to the next run. Fewer records than `realtime_below` are
    predicted in real time. A run `in_place` updates fields of the documents that it reads; it deletes nothing.
    """

    pipeline: str
    run_key: str
    source: str
    scope: str
    service: str
    model_id: str
    index: str
    index_uuid: str = ""
    fingerprint: str = ""
    counts: PrepareCounts = PrepareCounts()
    shards: list[Shard] = []
    # The largest number of groups of all attempts of the run, see `core.runs.shard_groups`.
    mapped: int = 0
    dead_letters: str | None = None
    reasons: list[LetterReason] = []
    vectors: list[VectorField] = []
    parameters: dict[str, Any] = {}
    inputs: tuple[str, ...] = ()
    claim: ScopeClaim | None = None
    version: int = 0
    attempt: str = ""
    pays: bool = True
    realtime_below: int = 0
    in_place: bool = False
    # The folder of the prediction store.
    predictions: str = ""
    remarks: list[str] = []
    run_id: str = ""
    started_at: float = 0.0
    datasets: RunDatasets = RunDatasets()

    def shard_digest(self, shard: Shard) -> str:
        """Return the digest that identifies a shard in its ingest report; after another `prepare` it differs."""
        return shard_digest(shard, self.version, self.attempt)


def shard_digest(shard: Shard, version: int, attempt: str) -> str:
    """Return the digest of a shard of a run with this version that this attempt of `prepare` staged."""
    return digest(shard.staged, shard.job, str(version), attempt)
