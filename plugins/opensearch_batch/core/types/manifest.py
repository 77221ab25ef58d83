"""The manifest of a run: its source, shards and counts. A run fails if its counts do not reconcile.

The files of a run have the prefix ``<work_prefix>/<pipeline>/<run_key>/``: prepare writes `manifest.json`,
`ledger.json` and ``staged/``, ingest writes ``ingest/<shard>.json``, and both write to ``dead_letters/``. All runs
share the files below ``<work_prefix>/jobs/`` (`core.jobs.job_records`), the record ledger and the prediction store.
"""

from __future__ import annotations

from typing import Any

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.vector_field import VectorField

# Placeholder in a shard's `output` for the name of its job.
JOB_NAME = "<job>"
# The id of the shard that has the deletions of a run.
DELETIONS = "deletions"
# The id of the shard that has the records without a prediction, which `repair` stages again.
REPAIR = "repair"


class Shard(msgspec.Struct, frozen=True):
    """What one ingest task writes, and the batch job that it needs.

    `id` is the position of the shard in the run, or `DELETIONS`. `job` is the key of its job, `input` the file of the
    job, with `records` lines and `bytes` bytes; `job` is empty if the predictions of all records are in the store.
    `staged` is the file of the `documents` records, or deletions, that the ingest writes; records without a job of a
    Data Prepper scan are not staged. `output` is the configured location of the job's output, with `JOB_NAME` for the
    name of the job; if it is empty, the output is written to the folder of the job. `etag` is the ETag of `input` if
    that is the user's own object, which may change (else empty). Tasks pass shards to each other through XCom.
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


class PrepareCounts(msgspec.Struct, frozen=True):
    """Counts of a run's source: objects, lines and classes of records.

    `objects` are listed, `opened` of them were read, because they changed. ``read == records + dead_letters``, and
    `records` is the sum of the classes `new`, `input_changed`, `other_changed`, `unchanged`, `duplicate` and
    `tombstone`, without the `promoted` records, which are in objects that did not change. `read` does not include
    `blank` lines. ``before == kept + removed`` counts documents of the ledger; `deleted` of them are deleted. `paid`
    are the records whose prediction has to be paid for. `waiting` new or changed records are left to the next run,
    because their object changed meanwhile, or because they are too few for a job; all others are staged.
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
                f"{location}: read {self.read} lines, but counted {self.records} records in classes of {classes} and "
                f"{self.dead_letters} dead letters"
            )
        if self.before != self.kept + self.removed:
            raise FatalError(
                f"{location}: the ledger had {self.before} documents, but {self.kept} are kept and {self.removed} are "
                "removed"
            )


class ScopeClaim(msgspec.Struct, frozen=True):
    """A run's claim of its scope: the version of its deletions; that of its documents is greater by one."""

    version: int
    run_key: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The shards and counts of one run of prepare.

    `scope` names the part of the pipeline that only one run writes at a time. `claim` is None for a trial run, which
    deletes nothing and does not change the ledger; `version` is the external version of the run's documents.
    `vectors` are the mapped vector fields of the index. `parameters` are the connector's parameters, overridden by
    those of the pipeline. `inputs` are the paths of the model's inputs.
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
    dead_letters: str | None = None
    vectors: list[VectorField] = []
    parameters: dict[str, Any] = {}
    inputs: tuple[str, ...] = ()
    claim: ScopeClaim | None = None
    version: int = 0
    # The folder of the prediction store.
    predictions: str = ""
    remarks: list[str] = []

    def part(self, shard: Shard) -> str:
        """Return what the report of a shard's ingest names, so that a report of an earlier prepare is not accepted."""
        return digest(shard.staged, shard.job, str(self.version))

    def require(self, shard: Shard) -> None:
        """Raise FatalError if prepare ran again after the source changed, so the manifest lacks the shard."""
        if shard not in self.shards:
            raise FatalError(
                f"shard {shard.id}: prepare ran again and created different shards; clear batch_predict to process them"
            )
