"""Defines the layout below the work prefix; other modules only name files inside the folders that it returns."""

from __future__ import annotations

from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.types.identity import digest

# Where requests and their jobs store files, unless Airflow's configuration or the request name another prefix.
DEFAULT_WORK_PREFIX = "s3://opensearch-batch"


class Layout:
    """The paths of one pipeline below the work prefix, which must be an ``s3://`` URI."""

    def __init__(self, work_prefix: str, pipeline: str) -> None:
        split_uri(work_prefix)
        self.root = work_prefix.rstrip("/")
        self.pipeline = pipeline
        self._folder = f"{self.root}/{pipeline}"

    def conditional_writes(self) -> str:
        """Return the path of the object that proves that the store implements conditional writes."""
        return f"{self.root}/conditional_writes.json"

    def job(self, job_key: str) -> str:
        """Return the folder of a batch job; jobs are shared by all pipelines of the work prefix."""
        return f"{self.root}/jobs/{job_key}"

    def job_input(self, job_key: str) -> str:
        """Return the path of the input of a batch job."""
        return f"{self.job(job_key)}/input.jsonl"

    def all_slots(self) -> str:
        """Return the folder of the slots of all models of the pipeline."""
        return f"{self._folder}/slots/"

    def slots(self, service: str, model_id: str) -> str:
        """Return the folder of the slots that limit a model's concurrent jobs."""
        return f"{self.all_slots()}{digest(service, model_id)}"

    def source_state(self, source: str) -> str:
        """Return the path of the record of a watched source's state at its last `prepare`."""
        return f"{self._folder}/source_states/{digest(source)}.json"

    def scan_head(self) -> str:
        """Return the path of the head of a Data Prepper pipeline."""
        return f"{self._folder}/scan/head.json"

    def output_writer(self, folder: str = "") -> str:
        """Return the path of the record of the job that writes to an output folder.

        All pipelines share these records. For ``""``, return their common prefix.
        """
        return f"{self.root}/outputs/{folder.removeprefix('s3://').strip('/')}{'/job.json' if folder else ''}"

    def sink(self, number: int, work_item: str) -> str:
        """Return the folder, shared by all runs, of a work item's progress in one sink."""
        return f"{self._folder}/written/{number}/{work_item}"

    def scopes(self) -> str:
        """Return the folder of the record ledger, which has a folder for each scope."""
        return f"{self._folder}/ledger/"

    def scope_head(self, scope: str) -> str:
        """Return the path of the head of a scope of the record ledger."""
        return f"{self.scopes()}{scope}/head.json"

    def scope_rows(self, scope: str) -> str:
        """Return the folder of the committed rows of a scope."""
        return f"{self.scopes()}{scope}/rows"

    def predictions(self, *, shared: bool = False) -> str:
        """Return the folder of the prediction store: the pipeline's own, or the one that pipelines share on request."""
        return f"{self.root if shared else self._folder}/predictions"

    def outbox(self) -> str:
        """Return the folder of index writes whose asset event has not been emitted yet."""
        return f"{self._folder}/outbox/"

    def summaries(self) -> str:
        """Return the folder of the summaries of runs, in whose listing the newest run is the first."""
        return f"{self._folder}/runs/"

    def run(self, run_key: str) -> str:
        """Return the folder of one run."""
        return f"{self._folder}/{run_key}"

    def run_account(self, run_key: str) -> str:
        """Return the path of a run's account."""
        return f"{self.run(run_key)}/run.json"

    def manifest(self, run_key: str) -> str:
        """Return the path of a run's manifest."""
        return f"{self.run(run_key)}/manifest.json"

    def run_ledger(self, run_key: str) -> str:
        """Return the path of what a run will commit to the record ledger."""
        return f"{self.run(run_key)}/ledger.json"

    def run_rows(self, run_key: str) -> str:
        """Return the folder of a run's pending rows of the record ledger."""
        return f"{self.run(run_key)}/rows"

    def spread_plan(self, run_key: str) -> str:
        """Return the path of the plan of a run that several tasks prepare; their files are in the same folder."""
        return f"{self.run(run_key)}/spread/plan.json"

    def staged(self, run_key: str, shard_id: str) -> str:
        """Return the path of the staged records, or deletions, of one shard of a run."""
        return f"{self.run(run_key)}/staged/{shard_id}.parquet"

    def unanswered(self, run_key: str, shard_id: str) -> str:
        """Return the path of the staged records of one shard for which its job returned no prediction."""
        return f"{unanswered_beside(self.manifest(run_key))}{shard_id}.parquet"

    def all_dead_letters(self, run_key: str) -> str:
        """Return the folder of the dead letters of a run, unless those of `ingest` have a prefix of their own."""
        return f"{self.run(run_key)}/dead_letters/"

    def dead_letters(self, run_key: str, stage: str, shard_id: str | None = None) -> str:
        """Return the folder of a stage's dead letters."""
        name = stage if shard_id is None else f"{stage}-{shard_id}"
        return f"{self.all_dead_letters(run_key)}{name}/"

    def is_prepare_dead_letters(self, source: str) -> bool:
        """Return whether a source is the folder of dead letters that `prepare` wrote in a run of this pipeline."""
        return source.startswith(f"{self._folder}/") and f"{source.rstrip('/')}/".endswith("/dead_letters/prepare/")

    def repair_job(self, run_key: str) -> str:
        """Return the path of the record of the job that `repair` reserved keys for."""
        return f"{self.run(run_key)}/repair.json"

    def ingest_report(self, run_key: str, shard_id: str) -> str:
        """Return the path of the report of `ingest` for one shard of a run."""
        return f"{self.run(run_key)}/ingest/{shard_id}.json"

    def ingest_reports(self, run_key: str) -> str:
        """Return the folder of the reports and of the ingest state of all shards of a run."""
        return f"{self.run(run_key)}/ingest/"

    def ingested(self, run_key: str, shard_id: str) -> str:
        """Return the folder of the ingest state of one shard of a run."""
        return f"{self.run(run_key)}/ingest/{shard_id}"


def unanswered_beside(manifest: str) -> str:
    """Return the folder of the unanswered records of the run with this manifest."""
    return f"{manifest.rpartition('/')[0]}/unanswered/"
