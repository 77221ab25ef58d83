"""The stages of a Data Prepper pipeline, from objects to objects: a run commits what it has done after its writes."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.runs.metrics import DOCUMENT_BYTES, DOCUMENTS, NO_SERVICE, RECORDS
from opensearch_batch.core.runs.run_details import run_details
from opensearch_batch.core.runs.run_lists import recent_runs
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.identity import run_key
from opensearch_batch.operators import scan
from opensearch_batch.operators.ingest import OpenSearchScanIngestOperator
from opensearch_batch.operators.reconcile import OpenSearchScanReconcileOperator
from opensearch_batch.operators.scan import OpenSearchScanPrepareOperator
from tests.core.aws import aws

PIPELINE = """
extension:
  opensearch_batch: {{work_prefix: s3://{bucket}/work}}
books:
  source:
    s3:
      codec: {{ndjson: {{}}}}
      aws: {{region: us-east-1}}
      delete_s3_objects_on_read: {deletes}
      acknowledgments: true
      scan:
        scheduling: {{interval: PT5M, count: 3}}
        buckets:
          - bucket: {{name: {bucket}, data_selection: data_only, filter: {{include_prefix: [in/]}}}}
  sink:
    - s3:
        bucket: {bucket}
        aws: {{region: us-east-1}}
        object_key: {{path_prefix: out/}}
        codec: {{ndjson: {{}}}}
        threshold: {{event_collect_timeout: 60s}}
"""


class Ti:
    """A task instance; other runs of its DAG have ended."""

    dag_id = "books"

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, *, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.pushed[key] = value

    def xcom_pull(self, *, key: str, **_: Any) -> Any:
        """Return an XCom of the run."""
        return self.pushed[key]

    def get_dagrun_state(self, **_: Any) -> str:
        """Return the state of another run."""
        return "failed"


class Runs:
    """Runs of one pipeline."""

    def __init__(self, store: S3Objects, bucket: str, folder: Path, *, deletes: bool) -> None:
        self.store, self.bucket, self.file = store, bucket, folder / "books.yaml"
        self.file.write_text(PIPELINE.format(bucket=bucket, deletes=str(deletes).lower()))

    def stage(self, kind: Any, task_id: str, **options: Any) -> Any:
        """Return a stage."""
        return kind(task_id=task_id, file=str(self.file), pipeline="books", **options)

    def begin(self, run_id: str) -> Any:
        """Prepare and ingest; return the context."""
        run = SimpleNamespace(dag_id="books", logical_date=None, run_id=run_id, conf={}, run_type="scheduled")
        context: Any = {"dag_run": run, "ti": Ti(), "params": {}}
        self.stage(OpenSearchScanPrepareOperator, "prepare").execute(context)
        for work_items in context["ti"].pushed["run"]["rows"]:
            self.stage(OpenSearchScanIngestOperator, "ingest_rows", work_items=work_items).execute(context)
        return context

    def end(self, context: Any, member: str = "counts") -> Any:
        """Reconcile; return the counts, or another member of the XCom."""
        return self.stage(OpenSearchScanReconcileOperator, "reconcile").execute(context)[member]

    def contents(self, prefix: str) -> list[bytes]:
        """Return the objects with a prefix."""
        found = (self.store.read(item.uri) for item in self.store.list(f"s3://{self.bucket}/{prefix}"))
        return [each.content for each in found if each is not None]


@pytest.fixture(scope="module")
def s3_client() -> Iterator[Any]:
    """A boto3 client of an S3 server of these tests' own."""
    with aws("s3") as client:
        yield client


@pytest.fixture(params=[False, True], ids=["kept", "deleted"])
def runs(s3_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Runs:
    """Runs of a pipeline that keeps or deletes what it has read."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=bucket)
    store = S3Objects(s3_client)
    monkeypatch.setattr(scan, "object_storage", lambda _: store)
    return Runs(store, bucket, tmp_path, deletes=request.param)


def test_a_scan_is_committed_by_the_end_of_its_run(runs: Runs) -> None:
    """A run that is killed before it is repeated, with the same objects; after the commit there is nothing to do."""
    uri = f"s3://{runs.bucket}/in/a.json"
    runs.store.write(uri, b'{"n": 1}\n{"n": 2}\n')
    runs.begin("killed")
    written = runs.contents("out/")
    assert written == [b'{"n":1}\n{"n":2}\n']
    assert runs.store.head(uri) is not None
    again = runs.begin("next")
    assert runs.contents("out/") == written
    reader, layout = CachedReader(runs.store), Layout(f"s3://{runs.bucket}/work", "books")
    details = run_details(reader, layout, run_key("books", "next"))
    assert (details.shard_states, details.settled, details.indexed + details.unchanged) == ({"written": 1}, 2, 2)
    counts = runs.end(again)
    ended = run_details(reader, layout, run_key("books", "next"))
    assert (ended.shard_states, ended.settled, ended.summary.has_ended) == ({"written": 1}, 2, True)
    assert (counts["read"], counts["indexed"] + counts["unchanged"]) == (2, 2)
    assert (runs.store.head(uri) is None) == ("true" in runs.file.read_text().split("on_read:")[1][:6])
    assert runs.end(again) == counts
    listed = recent_runs(reader, layout)
    assert [(run.run_id, run.is_scan, run.shards, run.has_ended) for run in listed] == [
        ("next", True, 1, True),
        ("killed", True, 1, False),
    ]
    last = runs.begin("last")
    assert recent_runs(reader, layout) == listed
    assert last["ti"].pushed["run"]["rows"] == []
    with pytest.raises(AirflowSkipException, match=r"all 3 scans of scheduling\.count are done"):
        runs.begin("one too many")


def test_a_scan_reports_its_prefixes_and_its_sinks(runs: Runs) -> None:
    """For the lineage of its stages."""
    runs.store.write(f"s3://{runs.bucket}/in/a.json", b'{"n": 1}\n')
    place = f"s3://{runs.bucket}"
    assert runs.end(runs.begin("first"), "datasets") == {
        "inputs": [{"namespace": place, "name": "in"}],
        "outputs": [{"namespace": place, "name": "out"}],
    }


def test_a_scan_is_measured(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `ingest` what it wrote, by `reconcile` what became of the rows."""
    found = Counter[tuple[str, str]]()
    monkeypatch.setattr(
        "opensearch_batch.operators.metrics.stats.incr",
        lambda name, count, tags: found.update({(name, tags.get("outcome", tags["service"])): count}),
    )
    runs.store.write(f"s3://{runs.bucket}/in/a.json", b'{"n": 1}\n{"n": 2}\n')
    context = runs.begin("first")
    assert +found == {(DOCUMENTS.name, NO_SERVICE): 2, (DOCUMENT_BYTES.name, NO_SERVICE): 2 * len('{"n":1}')}
    found.clear()
    runs.end(context)
    assert +found == {(RECORDS.name, "indexed"): 2}


def test_a_mapped_ingest_has_the_defaults_of_airflow() -> None:
    """Airflow reads them from the signatures of the classes; a task without a list of inlets does not start."""
    partial = OpenSearchScanIngestOperator.partial(task_id="ingest_rows", file="f.yaml", pipeline="p")
    mapped = partial.expand(work_items=[["a"]])
    assert (mapped.inlets, mapped.outlets) == ([], [])
