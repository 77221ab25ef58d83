"""The manifest of a run: its source, shards and counts. A run fails if its counts do not reconcile.

The files of a run have the prefix ``<work_prefix>/<pipeline>/<run_key>/``: prepare writes `manifest.json`, ingest
writes ``ingest/<shard>.json``, and both write to ``dead_letters/``. All runs share the files below
``<work_prefix>/jobs/`` (`core.jobs.job_records`), ``<work_prefix>/<pipeline>/ingested/`` and ``source_ranges/``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.types.counts import RunVersion
from opensearch_batch.core.types.vector_field import VectorField

# Placeholder in a shard's `output` for the name of its job.
JOB_NAME = "<job>"


class SourceRange(msgspec.Struct, frozen=True, array_like=True):
    """A range of consecutive lines of one source object, which became consecutive records of a shard."""

    source: str
    first_line: int
    records: int


class Shard(msgspec.Struct, frozen=True):
    """One input file in the format of the AI service. Each shard has one batch job and one ingest task.

    `id` is the position of the shard in the run, `job` is the key of its job, and `bytes` is the size of `input`.
    `source` is a file with the records as ``{"record_id": …, "record": …}``; it is empty if the service's output rows
    contain the records. `output` is the configured location of the job's output, with `JOB_NAME` for the name of the
    job; if it is empty, the output is written to the folder of the job. `etag` is the ETag of `input` if that is the
    user's own object, which may change (else empty). Tasks pass shards to each other through XCom.
    """

    id: str
    input: str
    job: str
    records: int
    bytes: int
    source: str = ""
    output: str = ""
    etag: str = ""


class PrepareCounts(msgspec.Struct, frozen=True):
    """Counts of the source lines: ``read == records + dead_letters``. `read` does not include `blank` lines."""

    read: int = 0
    records: int = 0
    dead_letters: int = 0
    blank: int = 0

    def reconcile(self, location: str) -> None:
        """Check that every line that was read is a record of a shard or a dead letter.

        Args:
            location: the beginning of the error message.

        Raises:
            FatalError: `read` differs from the sum of `records` and `dead_letters`.
        """
        counted = self.records + self.dead_letters
        if self.read != counted:
            raise FatalError(f"{location}: read {self.read} lines, but counted {counted} records and dead letters")


class PreparedShard(msgspec.Struct, frozen=True):
    """A shard with the source ranges of its records."""

    shard: Shard
    source_ranges: list[SourceRange]


class Manifest(msgspec.Struct, frozen=True):
    """The shards and counts of one run of prepare.

    `vectors` are the mapped vector fields of the index. `parameters` are the connector's parameters, overridden by
    those of the pipeline. `inputs` are the paths of the model's inputs. `run_version` is None if the run read only a
    part of the source; such a run is neither newer nor older than other runs.
    """

    pipeline: str
    run_key: str
    source: str
    service: str
    model_id: str
    counts: PrepareCounts
    shards: list[PreparedShard]
    dead_letters: str | None = None
    vectors: list[VectorField] = []
    parameters: dict[str, Any] = {}
    inputs: tuple[str, ...] = ()
    run_version: RunVersion | None = None

    def origin(self, shard: Shard) -> list[SourceRange]:
        """Return the source ranges of one shard.

        Raises:
            FatalError: prepare ran again after the source changed, so the manifest no longer contains the shard.
        """
        for prepared in self.shards:
            if prepared.shard == shard:
                return prepared.source_ranges
        raise FatalError(
            f"shard {shard.id}: prepare ran again and created different shards; clear batch_predict to process them"
        )
