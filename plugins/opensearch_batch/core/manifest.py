"""The account of a run: what was read, where it lies, what became of it. Counts reconcile or the run fails.

A run's files lie below ``<work>/<pipeline>/<run_key>/``: `manifest.json` (by prepare), ``ingest/<shard>.json`` (by
ingest) and ``dead_letters/``. What is shared between runs lies below ``<work>/jobs/`` (see `core.job`) and
``<work>/<pipeline>/ingested/`` and ``places/``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.progress import Age
from opensearch_batch.core.stores.objects import Objects, split_uri
from opensearch_batch.core.vectors import VectorField

KEY_HEX_DIGITS = 32
# Stands in a shard's `output` for the name that its job will have.
JOB_NAME = "<job>"


class Segment(msgspec.Struct, frozen=True, array_like=True):
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
    """Lines of the sources: ``read == records + dead_letters``; blank lines are not records and stand apart."""

    read: int = 0
    records: int = 0
    dead_letters: int = 0
    blank: int = 0

    def reconcile(self, place: str) -> None:
        """Raise FatalError unless every line read is a record of a shard or a dead letter."""
        if self.read != self.records + self.dead_letters:
            verdicts = self.records + self.dead_letters
            raise FatalError(f"{place}: read {self.read} lines, but {verdicts} are a record or a dead letter")


class PreparedShard(msgspec.Struct, frozen=True):
    """A shard with the origin of its records."""

    shard: Shard
    segments: list[Segment]


class Manifest(msgspec.Struct, frozen=True):
    """What prepare found and made in one run.

    `vectors` are the mapped vector fields of the index it checked; `parameters` those of connector and pipeline
    together, `inputs` the paths the model reads. `age` is when the source was listed; None for a run that
    took but a part, which is neither newer nor older than others.
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
    age: Age | None = None

    def origin(self, shard: Shard) -> list[Segment]:
        """Return the segments of one shard.

        Raises:
            FatalError: the manifest has no such shard, because prepare ran again after the source changed.
        """
        for prepared in self.shards:
            if prepared.shard == shard:
                return prepared.segments
        raise FatalError(f"shard {shard.id}: prepare made other shards since; clear batch_predict for the new ones")


class WorkPrefix:
    """Names every location below the work prefix of one pipeline."""

    def __init__(self, work: str, pipeline: str) -> None:
        split_uri(work)
        self.root = work.rstrip("/")
        self.pipeline = pipeline

    def job(self, job_key: str) -> str:
        """Return the folder of a batch job, outside any run."""
        return f"{self.root}/jobs/{job_key}"

    def slots(self, service: str, model_id: str) -> str:
        """Return the folder of what limits the jobs in flight of the pipeline and a model."""
        return f"{self.root}/{self.pipeline}/slots/{digest(service, model_id)}"

    def prepared(self, source: str) -> str:
        """Return where it is noted which state of a watched source was prepared last."""
        return f"{self.root}/{self.pipeline}/prepared/{digest(source)}.json"

    def scanned(self) -> str:
        """Return where it is noted what the scans of a Data Prepper pipeline found."""
        return f"{self.root}/{self.pipeline}/scanned.json"

    def done(self, unit: str) -> str:
        """Return where it is noted that a unit of a scan is done."""
        return f"{self.root}/{self.pipeline}/done/{unit}.json"

    def outputs(self, folder: str = "") -> str:
        """Return where it is noted, for all pipelines, which job writes into a folder; without one, all such notes."""
        return f"{self.root}/outputs/{folder.removeprefix('s3://').strip('/')}{'/job.json' if folder else ''}"

    def written(self, sink: int, unit: str) -> str:
        """Return the folder, shared by all runs, of what of a unit is written to a sink."""
        return f"{self.root}/{self.pipeline}/written/{sink}/{unit}"

    def retention(self) -> str:
        """Return the folder of what the pipeline's successful runs used, by time."""
        return f"{self.root}/{self.pipeline}/retention/"

    def account(self, run_key: str) -> str:
        """Return the location of a run's own account."""
        return f"{self.run(run_key)}/run.json"

    def repair(self, run_key: str, shard_id: str) -> str:
        """Return where repair accounts for the jobs of one shard of a run."""
        return f"{self.run(run_key)}/repair/{shard_id}.json"

    def run(self, run_key: str) -> str:
        """Return the folder of one run."""
        return f"{self.root}/{self.pipeline}/{run_key}"

    def manifest(self, run_key: str) -> str:
        """Return the location of a run's manifest."""
        return f"{self.run(run_key)}/manifest.json"

    def dead_letters(self, run_key: str, stage: str, shard_id: str | None = None) -> str:
        """Return where a stage of a run puts its dead letters."""
        name = stage if shard_id is None else f"{stage}-{shard_id}"
        return f"{self.run(run_key)}/dead_letters/{name}/"

    def ingest_report(self, run_key: str, shard_id: str) -> str:
        """Return where ingest accounts for one shard of a run."""
        return f"{self.run(run_key)}/ingest/{shard_id}.json"

    def used(self, run_key: str, shard_id: str) -> str:
        """Return where ingest notes which jobs' outputs it read for one shard of a run."""
        return f"{self.run(run_key)}/ingest/{shard_id}-jobs.json"

    def ingested(self, index: str, segments: Sequence[Segment]) -> str:
        """Return the folder, shared by all runs of the pipeline, of what of one place in the sources is in the index.

        It is named by the place at which a shard begins and not by its content: newer content takes the place of the
        older, and news before it moves nothing.
        """
        first = segments[0]
        return self._place(digest(index, first.source, str(first.first_line)))

    def progress(self, place: str) -> str:
        """Return the progress of a place, given the last part of its folder."""
        return f"{self._place(place)}/progress.json"

    def places(self, index: str, scope: str) -> str:
        """Return where it is noted which places the last run of a scope made."""
        return f"{self.root}/{self.pipeline}/places/{digest(index, scope)}.json"

    def _place(self, name: str) -> str:
        return f"{self.root}/{self.pipeline}/ingested/{name}"


def run_key(dag_id: str, run: str) -> str:
    """Return the key of a run; `run` is its partition key, else its logical date, else its run id."""
    return digest(dag_id, run)


def digest(*parts: str) -> str:
    """Return a short stable hash of texts, unambiguous about where one ends (joined by NUL)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_HEX_DIGITS]


def save(objects: Objects, uri: str, value: msgspec.Struct) -> None:
    """Write a typed value as JSON, indented for people."""
    objects.write(uri, msgspec.json.format(msgspec.json.encode(value), indent=1))


def load_manifest(objects: Objects, uri: str) -> Manifest:
    """Read a run's manifest.

    Raises:
        ConfigError: it is not there.
    """
    stored = objects.read(uri)
    if stored is None:
        raise ConfigError(f"{uri}: no manifest; clear prepare to write it")
    return msgspec.json.decode(stored.content, type=Manifest)
