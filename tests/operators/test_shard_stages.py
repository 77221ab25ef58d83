"""The tasks prepare and ingest tell a run's age, what is gone from its source, and what became of a shard."""

from __future__ import annotations

import json
import uuid
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from opensearch_batch.core.opensearch.ml_commons import Model
from opensearch_batch.core.storage.json_document import load_manifest
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.manifest import Manifest
from opensearch_batch.operators import ingest, prepare
from tests.core.aws import aws
from tests.core.pipeline_runs import INDEX, INPUTS, PARAMETERS, Documents, Runs, record

LATER = 1_000_000_000.0


class Prepares:
    """Runs the tasks, with a store and a cluster of these tests' own."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def __call__(self, run: str, **how: Any) -> Manifest:
        """Prepare one run and return its manifest."""
        pushed: dict[str, Any] = {}
        operator = prepare.OpenSearchPrepareOperator(
            task_id="prepare",
            source=self.runs.source,
            work=self.runs.work.root,
            service="sagemaker",
            index=INDEX,
            field_map={"_id": "$.id", "text": "$.text"},
            model_id="m",
            inputs=INPUTS,
            max_records=1,
            **how,
        )
        dag_run = SimpleNamespace(dag_id="p", partition_key=None, logical_date=None, run_id=run)
        ti: Any = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
        operator.execute({"params": {}, "dag_run": dag_run, "ti": ti})
        return load_manifest(self.runs.objects, pushed["run"]["manifest"], Manifest)

    def ingest(self, run: str, manifest: Manifest) -> Any:
        """Ingest the first shard of a run."""
        shard = manifest.shards[0].shard
        operator = ingest.OpenSearchBatchIngestOperator(
            task_id="ingest",
            shard=msgspec.to_builtins(shard),
            work=self.runs.work.root,
            service="sagemaker",
            index=INDEX,
            field_map={"_id": "$.id", "text": "$.text"},
        )
        polled = {"task_id": "t", "state": "COMPLETED", "outputs": [f"{self.runs.work.job(shard.job)}/output/1/x.out"]}
        found = {"poll": polled, "repair": None}
        dag_run = SimpleNamespace(dag_id="p", partition_key=None, logical_date=None, run_id=run)
        ti: Any = SimpleNamespace(map_index=0, xcom_pull=lambda task_ids, map_indexes: found[task_ids])  # noqa: ARG005 - one
        return operator.execute({"params": {}, "dag_run": dag_run, "ti": ti})


@pytest.fixture
def prepares(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task over an empty source."""
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


def test_a_run_is_as_old_as_its_listing(prepares: Prepares, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one source and the same globs have an order; one with a limit has no age."""
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


def test_a_place_that_is_gone_is_noticed(prepares: Prepares) -> None:
    """A broken first line moves where the shard begins; put back, it is written again."""
    runs = prepares.runs
    runs.put("a.jsonl", record(1, "good"))
    runs.ingest(prepares("1"))
    runs.objects.write(f"{runs.source}a.jsonl", b'{"broken\n' + json.dumps(record(1, "bad")).encode())
    runs.ingest(prepares("2"))
    assert runs.cluster.texts == {"1": "bad"}
    runs.put("a.jsonl", record(1, "good"))
    runs.ingest(prepares("3"))
    assert runs.cluster.texts == {"1": "good"}


def test_a_shard_that_is_overtaken_says_so_in_the_log(prepares: Prepares) -> None:
    """A task that succeeded without writing tells why."""
    runs = prepares.runs
    runs.put("a.jsonl", record(1, "old"))
    old = prepares("1")
    runs.objects.write(f"{runs.work.job(old.shards[0].shard.job)}/output/1/x.out", b"{}")
    runs.put("a.jsonl", record(1, "new"))
    runs.ingest(prepares("2"))
    with capture_logs() as said:
        assert prepares.ingest("1", old)["counts"]["superseded"] == 1
    warnings = [str(each["event"]) for each in said if each["log_level"] == "warning"]
    assert any(text.startswith("1 records superseded: a run that listed the source later") for text in warnings)
