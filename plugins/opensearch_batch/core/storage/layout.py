"""Names every location below the work prefix of a pipeline; no other module builds such a name."""

from __future__ import annotations

from collections.abc import Sequence

from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.manifest import SourceRange


class Layout:
    """The locations below the work prefix of one pipeline."""

    def __init__(self, work_prefix: str, pipeline: str) -> None:
        split_uri(work_prefix)
        self.root = work_prefix.rstrip("/")
        self.pipeline = pipeline
        self._folder = f"{self.root}/{pipeline}"

    def job(self, job_key: str) -> str:
        """Return the folder of a batch job, which all pipelines of the work prefix share."""
        return f"{self.root}/jobs/{job_key}"

    def slots(self, service: str, model_id: str) -> str:
        """Return the folder of the slots that limit the jobs in flight of a model."""
        return f"{self._folder}/slots/{digest(service, model_id)}"

    def source_state(self, source: str) -> str:
        """Return the location of the last state of a watched source that a run prepared."""
        return f"{self._folder}/source_states/{digest(source)}.json"

    def scan_state(self) -> str:
        """Return the location of what the scans of a Data Prepper pipeline found."""
        return f"{self._folder}/scan_state.json"

    def done(self, work_item: str) -> str:
        """Return the location of the record that a work item of a scan is done."""
        return f"{self._folder}/done/{work_item}.json"

    def output_writer(self, folder: str = "") -> str:
        """Return the location, for all pipelines, of which job writes into a folder; without one, their prefix."""
        return f"{self.root}/outputs/{folder.removeprefix('s3://').strip('/')}{'/job.json' if folder else ''}"

    def sink(self, number: int, work_item: str) -> str:
        """Return the folder, shared by all runs, of the progress of a work item's rows in one sink."""
        return f"{self._folder}/written/{number}/{work_item}"

    def retention(self) -> str:
        """Return the folder of what successful runs used, by time."""
        return f"{self._folder}/retention/"

    def outbox(self) -> str:
        """Return the folder of index writes whose asset event has not been emitted yet."""
        return f"{self._folder}/outbox/"

    def run(self, run_key: str) -> str:
        """Return the folder of one run."""
        return f"{self._folder}/{run_key}"

    def run_account(self, run_key: str) -> str:
        """Return the location of the account of a run."""
        return f"{self.run(run_key)}/run.json"

    def repair_account(self, run_key: str, shard_id: str) -> str:
        """Return the location of what repair did for one shard of a run."""
        return f"{self.run(run_key)}/repair/{shard_id}.json"

    def manifest(self, run_key: str) -> str:
        """Return the location of a run's manifest."""
        return f"{self.run(run_key)}/manifest.json"

    def dead_letters(self, run_key: str, stage: str, shard_id: str | None = None) -> str:
        """Return the queue of a stage's dead letters."""
        name = stage if shard_id is None else f"{stage}-{shard_id}"
        return f"{self.run(run_key)}/dead_letters/{name}/"

    def ingest_report(self, run_key: str, shard_id: str) -> str:
        """Return the location of the report of the ingest of one shard of a run."""
        return f"{self.run(run_key)}/ingest/{shard_id}.json"

    def used_jobs(self, run_key: str, shard_id: str) -> str:
        """Return the location of which jobs' outputs the ingest of one shard of a run read."""
        return f"{self.run(run_key)}/ingest/{shard_id}-jobs.json"

    def range_key(self, index: str, source_ranges: Sequence[SourceRange]) -> str:
        """Return the key of a shard's records in an index, the same in all runs of the pipeline.

        It is made of where in the source the shard starts and not of its content: newer content of the same range
        replaces the older, and a change of earlier objects does not move it.
        """
        first = source_ranges[0]
        return digest(index, first.source, str(first.first_line))

    def ingested(self, range_key: str) -> str:
        """Return the folder, shared by all runs, of what of one range is in the index."""
        return f"{self._folder}/ingested/{range_key}"

    def progress(self, range_key: str) -> str:
        """Return the location of the ingest progress of one range."""
        return f"{self.ingested(range_key)}/progress.json"

    def source_ranges(self, index: str, scope: str) -> str:
        """Return the location of the ranges that the last run of a scope prepared."""
        return f"{self._folder}/source_ranges/{digest(index, scope)}.json"
