"""The stages prepare and ingest: run versions, source ranges that are gone, and superseded shards."""

from __future__ import annotations

import json
import uuid
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.opensearch.ml_commons import Model
from opensearch_batch.core.storage.json_document import load_manifest
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Manifest
from opensearch_batch.operators import ingest, prepare
from tests.core.aws import aws
from tests.core.pipeline_runs import INDEX, INPUTS, PARAMETERS, Documents, Runs, record

LATER = 1_000_000_000.0


class Prepares:
    """Runs the stages with a store and a cluster of these tests."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def __call__(self, run: str, **how: Any) -> Manifest:
        """Prepare one run and return its manifest."""
        pushed: dict[str, Any] = {}
        operator = prepare.OpenSearchPrepareOperator(
            task_id="prepare",
            source=self.runs.source,
            work_prefix=self.runs.layout.root,
            service="sagemaker",
            index=INDEX,
            field_map={"_id": "$.id", "text": "$.text"},
            model_id="m",
            inputs=INPUTS,
            max_records=1,
            **how,
        )
        dag_run = SimpleNamespace(dag_id="p", partition_key=None, logical_date=None, run_id=run, conf={})
        ti: Any = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
        operator.execute({"params": {}, "dag_run": dag_run, "ti": ti})
        return load_manifest(self.runs.objects, pushed["run"]["manifest"], Manifest)

    def ingest(self, run: str, manifest: Manifest) -> Any:
        """Ingest the first shard of a run."""
        shard = manifest.shards[0].shard
        operator = ingest.OpenSearchBatchIngestOperator(
            task_id="ingest",
            shard=msgspec.to_builtins(shard),
            work_prefix=self.runs.layout.root,
            service="sagemaker",
            index=INDEX,
            field_map={"_id": "$.id", "text": "$.text"},
        )
        folder = self.runs.layout.job(shard.job)
        output = f"{folder}/output/1/"
        job = JobRecord(shard.job, "j", "sagemaker", "m", "s3://in/x", output, intended_at=0.0, ml_task_id="t")
        JobRecords(self.runs.objects, folder).write(job, etag=None)
        polled = {"task_id": "t", "state": "COMPLETED", "outputs": [f"{output}x.out"]}
        found = {"poll": polled, "repair": None}
        dag_run = SimpleNamespace(dag_id="p", partition_key=None, logical_date=None, run_id=run, conf={})
        ti: Any = SimpleNamespace(map_index=0, xcom_pull=lambda task_ids, map_indexes: found[task_ids])  # noqa: ARG005 - one
        return operator.execute({"params": {}, "dag_run": dag_run, "ti": ti})


@pytest.fixture
def prepares(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stages over an empty source."""
    with aws("s3") as client:
        bucket = f"b-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=bucket)
        store, cluster = S3Objects(client), Documents()
        cluster.search_url = lambda index: index  # type: ignore[method-assign] # there is no address
        hook = SimpleNamespace(cluster=cluster, ml=SimpleNamespace(model=lambda model_id: Model(model_id, PARAMETERS)))
        monkeypatch.setattr(prepare, "object_storage", lambda conn_id: store)  # noqa: ARG005 - the one store
        monkeypatch.setattr(ingest, "outputs_store", lambda **conns: store)  # noqa: ARG005 - the one store
        for task in (prepare, ingest):
            monkeypatch.setattr(task, "OpenSearchMLHook", lambda conn_id: hook)  # noqa: ARG005 - the one cluster
        yield Prepares(Runs(store, bucket))


def test_a_run_version_is_the_time_of_its_listing(prepares: Prepares, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version of a run is when it listed its source; other globs are another scope; a limit gives none."""
    prepares.runs.put("a.jsonl", record(1, "a"))
    monkeypatch.setattr(prepare, "time", SimpleNamespace(time=lambda: LATER))
    first, globs, limited = prepares("1"), prepares("2", exclude=["b*"]), prepares("3", limit=1)
    monkeypatch.setattr(prepare, "time", SimpleNamespace(time=lambda: LATER + 1))
    second = prepares("4")
    assert first.run_version is not None
    assert first.run_version.at == LATER
    assert first.run_version.is_before(second.run_version)
    assert not first.run_version.is_before(globs.run_version)
    assert limited.run_version is None


def test_a_source_range_that_is_gone_is_written_again_when_it_returns(prepares: Prepares) -> None:
    """A broken first line moves the start of a shard; after the source is restored its records are written again."""
    runs = prepares.runs
    runs.put("a.jsonl", record(1, "good"))
    runs.ingest(prepares("1"))
    runs.objects.write(f"{runs.source}a.jsonl", b'{"broken\n' + json.dumps(record(1, "bad")).encode())
    runs.ingest(prepares("2", max_dead_letters="50%"))
    assert runs.cluster.texts == {"1": "bad"}
    runs.put("a.jsonl", record(1, "good"))
    runs.ingest(prepares("3"))
    assert runs.cluster.texts == {"1": "good"}


def test_a_superseded_shard_is_logged(prepares: Prepares) -> None:
    """A task that succeeds without writing logs why."""
    runs = prepares.runs
    runs.put("a.jsonl", record(1, "old"))
    old = prepares("1")
    runs.objects.write(f"{runs.layout.job(old.shards[0].shard.job)}/output/1/x.out", b"{}")
    runs.put("a.jsonl", record(1, "new"))
    runs.ingest(prepares("2"))
    with capture_logs() as entries:
        assert prepares.ingest("1", old)["counts"]["superseded"] == 1
    warnings = [str(each["event"]) for each in entries if each["log_level"] == "warning"]
    assert any(text.startswith("1 records superseded: a run that listed the source later") for text in warnings)
