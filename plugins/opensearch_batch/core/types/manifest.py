"""The manifest of a run: its sources, shards and counts. Counts reconcile or the run fails.

Files of a run are below ``<work_prefix>/<pipeline>/<run_key>/``: `manifest.json` (by prepare), ``ingest/<shard>.json``
(by ingest) and ``dead_letters/``. Runs share what is below ``<work_prefix>/jobs/`` (`core.jobs.job_records`),
``<work_prefix>/<pipeline>/ingested/`` and ``source_ranges/``.
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
    """A run of consecutive lines of one source object, in a shard: where each record of the shard came from."""

    source: str
    first_line: int
    records: int


class Shard(msgspec.Struct, frozen=True):
    """One service-ready input file: the unit of one batch job and of one ingest task.

    `id` is its position in the run, `job` its job key, `bytes` the size of `input`. `source` holds the records as
    ``{"record_id": …, "record": …}``, where the service's rows will not (else empty). `output` is where the user wants
    the job's output, with `JOB_NAME` for its name; below the job's own folder if empty. `etag` is that of an input
    that is the user's own object, which may change (else empty). This is what XCom carries.
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
    """Lines of the sources: ``read == records + dead_letters``; blank lines are counted apart."""

    read: int = 0
    records: int = 0
    dead_letters: int = 0
    blank: int = 0

    def reconcile(self, location: str) -> None:
        """Raise FatalError unless every line that was read is a record of a shard or a dead letter."""
        if self.read != self.records + self.dead_letters:
            verdicts = self.records + self.dead_letters
            raise FatalError(f"{location}: read {self.read} lines, but {verdicts} are a record or a dead letter")


class PreparedShard(msgspec.Struct, frozen=True):
    """A shard with the source ranges of its records."""

    shard: Shard
    source_ranges: list[SourceRange]


class Manifest(msgspec.Struct, frozen=True):
    """The shards and counts of one run of prepare.

    `vectors` are the mapped vector fields of the index. `parameters` are those of the connector, overridden by the
    pipeline. `inputs` are the paths of the model's inputs. `run_version` is when the source was listed; None for a run
    that read a part of it only, which is neither newer nor older than others.
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
            FatalError: the manifest has no such shard, because prepare ran again after the source changed.
        """
        for prepared in self.shards:
            if prepared.shard == shard:
                return prepared.source_ranges
        raise FatalError(f"shard {shard.id}: prepare has created different shards since; clear batch_predict for those")
