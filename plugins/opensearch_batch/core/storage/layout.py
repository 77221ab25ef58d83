"""Names every location below the work prefix of a pipeline; nothing else builds such a name."""

from __future__ import annotations

from collections.abc import Sequence

from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.manifest import SourceRange


class Layout:
    """Names every location below the work prefix of one pipeline."""

    def __init__(self, work_prefix: str, pipeline: str) -> None:
        split_uri(work_prefix)
        self.root = work_prefix.rstrip("/")
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

    def done(self, work_item: str) -> str:
        """Return where it is noted that a work item of a scan is done."""
        return f"{self.root}/{self.pipeline}/done/{work_item}.json"

    def outputs(self, folder: str = "") -> str:
        """Return where it is noted, for all pipelines, which job writes into a folder; without one, all such notes."""
        return f"{self.root}/outputs/{folder.removeprefix('s3://').strip('/')}{'/job.json' if folder else ''}"

    def written(self, sink: int, work_item: str) -> str:
        """Return the folder, shared by all runs, of what of a work item is written to a sink."""
        return f"{self.root}/{self.pipeline}/written/{sink}/{work_item}"

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

    def ingested(self, index: str, source_ranges: Sequence[SourceRange]) -> str:
        """Return the folder, shared by all runs of the pipeline, of what of one place in the sources is in the index.

        It is named by the place at which a shard begins and not by its content: newer content takes the place of the
        older, and news before it moves nothing.
        """
        first = source_ranges[0]
        return self._place(digest(index, first.source, str(first.first_line)))

    def progress(self, place: str) -> str:
        """Return the progress of a place, given the last part of its folder."""
        return f"{self._place(place)}/progress.json"

    def places(self, index: str, scope: str) -> str:
        """Return where it is noted which places the last run of a scope made."""
        return f"{self.root}/{self.pipeline}/places/{digest(index, scope)}.json"

    def _place(self, name: str) -> str:
        return f"{self.root}/{self.pipeline}/ingested/{name}"
