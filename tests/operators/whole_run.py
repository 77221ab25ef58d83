"""Runs the stages of one pipeline as operators, over a store and a cluster in memory; their jobs answer at once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.opensearch.ml_commons import Model
from opensearch_batch.core.runs.spread import SPLIT_BYTES
from opensearch_batch.core.types.job import Accepted, End
from opensearch_batch.core.types.manifest import Shard, ShardGroup
from opensearch_batch.dag_factory.schedules import index_asset
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.operators import ingest, prepare, publish, reconcile, spread, submission
from opensearch_batch.operators.base import layout_of
from opensearch_batch.operators.batch_predict import OpenSearchBatchPredictOperator
from opensearch_batch.operators.ingest import OpenSearchBatchIngestOperator
from opensearch_batch.operators.prepare import OpenSearchPrepareOperator
from opensearch_batch.operators.publish import OpenSearchPublishOperator
from opensearch_batch.operators.reconcile import OpenSearchReconcileOperator
from opensearch_batch.operators.spread import (
    OpenSearchCompareOperator,
    OpenSearchReadOperator,
    OpenSearchReserveOperator,
    OpenSearchSplitOperator,
    OpenSearchStageOperator,
)
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_indexes import MemoryIndexes
from tests.core.memory_objects import MemoryObjects
from tests.stored import content, present

NAME, SERVICE, WORK_PREFIX, SOURCE = "books", "sagemaker", "s3://work", "s3://docs/books/"
CLUSTER_URL = "http://search:9200"
JOB_WAIT_S = 42.0
BUSY = {"errors": True, "items": [{"index": {"status": 429, "error": {"type": "busy", "reason": "queue"}}}]}


class Store(MemoryObjects):
    """A store whose objects a browser can show."""

    def browse_url(self, uri: str) -> str:
        """Return the URL of an object."""
        return uri


class Search(MemoryIndexes):
    """A cluster with the index `books`. It counts the bytes of bulk bodies, and is busy for the first `busy` bodies."""

    url = CLUSTER_URL

    def __init__(self) -> None:
        super().__init__()
        self.create(NAME, text={"type": "text"}, v={"type": "knn_vector", "dimension": 2})
        self.sent_bytes = self.busy = 0

    def call(self, method: str, path: str, body: Any = None, **how: Any) -> Any:
        """Answer a request."""
        if path.endswith("_bulk") and self.busy:
            self.busy -= 1
            return {**BUSY, "items": BUSY["items"] * (body.count(b"\n") // 2)}
        if path.endswith("_bulk"):
            self.sent_bytes += len(body)
        return super().call(method, path, body, **how)


class Ti:
    """A task instance in a DAG whose XComs are known by task."""

    dag_id, run_id, map_index, max_tries, try_number = NAME, "manual__1", -1, 0, 1

    def __init__(self, xcoms: dict[Any, Any], task_id: str) -> None:
        self.xcoms, self.task_id = xcoms, task_id

    def xcom_push(self, *, key: str, value: Any) -> None:
        """Keep an XCom of this task."""
        self.xcoms[self.task_id, key] = value

    def xcom_pull(self, *, task_ids: str, key: str = "return_value", **_: Any) -> Any:
        """Return an XCom, None if there is none."""
        return self.xcoms.get((task_ids, key))


class Pipeline:
    """A pipeline, and the tasks of its last run that have ended, by task id."""

    def __init__(self) -> None:
        self.store, self.search = Store(), Search()
        self.xcoms: dict[Any, Any] = {}
        self.ended: dict[str, BaseOperator] = {}
        self.split_bytes: int | None = None
        self.skipped = set[str]()
        self.lengths: dict[Any, int | None] = {}
        self.outlet = index_asset("opensearch_default", NAME)

    def write(self, name: str, lines: Iterable[bytes]) -> None:
        """Write an object of the source."""
        self.store.write(f"{SOURCE}{name}", b"".join(line + b"\n" for line in lines))

    def run(self, run_id: str) -> None:
        """Run all stages; a job ends JOB_WAIT_S after its submission."""
        self.xcoms.clear()
        self.ended.clear()
        self.skipped.clear()
        shared: dict[str, Any] = {"work_prefix": WORK_PREFIX}
        field_map = {"_id": "$.id", "text": "$.text", "v": "prediction"}
        documents = {**shared, "index": NAME, "field_map": field_map, "service": SERVICE}
        stage = OpenSearchPrepareOperator(
            task_id="prepare",
            source=SOURCE,
            inputs=["$.text"],
            max_dead_letters="50%",
            on_removed="delete",
            split=None if self.split_bytes is None else "split",
            split_bytes=self.split_bytes or SPLIT_BYTES,
            **documents,
        )
        self._execute(stage, run_id)
        if self.split_bytes is not None and "split" not in self.skipped:
            self._spread(run_id)
        groups = [msgspec.convert(group, ShardGroup) for group in self.xcoms["prepare", "return_value"]]
        for group in groups:
            shards = msgspec.to_builtins(group)
            if group.records:
                self._execute(
                    OpenSearchBatchPredictOperator(
                        task_id="batch_predict", shards=shards, service=SERVICE, model_id="m", **shared
                    ),
                    run_id,
                )
                self.xcoms["poll", "return_value"] = [self._answer(shard, run_id) for shard in group.shards]
            self._execute(OpenSearchBatchIngestOperator(task_id="ingest", shards=shards, **documents), run_id)
        self._execute(OpenSearchReconcileOperator(task_id="reconcile", retention_days=None, **shared), run_id)
        self._execute(OpenSearchPublishOperator(task_id="publish", index=NAME, outlets=[self.outlet], **shared), run_id)

    def _spread(self, run_id: str) -> None:
        """Run the stages that prepare a large source."""
        for split in self._execute(OpenSearchSplitOperator(task_id="split", work_prefix=WORK_PREFIX), run_id):
            self._execute(OpenSearchReadOperator(task_id="read", work_prefix=WORK_PREFIX, split=split), run_id)
        for split in self._execute(OpenSearchCompareOperator(task_id="compare", work_prefix=WORK_PREFIX), run_id):
            self._execute(OpenSearchStageOperator(task_id="stage", work_prefix=WORK_PREFIX, split=split), run_id)
        self._execute(OpenSearchReserveOperator(task_id="reserve", work_prefix=WORK_PREFIX), run_id)

    def context(self, run_id: str, task_id: str) -> Any:
        """Return the context of a task."""
        began = datetime.now(UTC) - timedelta(hours=1)
        run = SimpleNamespace(dag_id=NAME, run_id=run_id, logical_date=None, conf={}, start_date=began)
        events = {self.outlet: SimpleNamespace(extra=None)}
        return {"dag_run": run, "ti": Ti(self.xcoms, task_id), "params": {}, "outlet_events": events}

    def set_xcom(self, *, key: str, value: Any, task_id: str, _mapped_length: int | None, **_: Any) -> None:
        """Keep an XCom of a task, and over how many values tasks may be mapped."""
        self.xcoms[task_id, key], self.lengths[task_id, key] = value, _mapped_length

    def _execute(self, task: BaseOperator, run_id: str) -> Any:
        self.ended[task.task_id] = task
        try:
            value = task.execute(self.context(run_id, task.task_id))
        except AirflowSkipException:
            return None
        except DownstreamTasksSkipped as skipped:
            self.skipped.update(skipped.tasks)
            return None
        self.xcoms[task.task_id, "return_value"] = value
        return value

    def _answer(self, shard: Shard, run_id: str) -> Any:
        """End the job of a shard; return the result of its poll."""
        folder = layout_of(WORK_PREFIX, self.context(run_id, "poll")).job(shard.job)
        records = JobRecords(self.store, folder)
        record = present(records.read())
        texts = [json.loads(line)["text"] for line in content(self.store, shard.input).splitlines()]
        rows = [json.dumps({"text": text, "SageMakerOutput": [len(text) + 0.5, 0.25]}) for text in texts]
        output = f"{record.output}{shard.input.rpartition('/')[2]}.out"
        self.store.write(output, "\n".join(rows).encode())
        records.end(record.submission, End("COMPLETED", record.intended_at + JOB_WAIT_S))
        return {"task_id": record.ml_task_id, "state": "COMPLETED", "outputs": [output]}


def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Return a pipeline whose connections lead to its store and cluster."""
    made = Pipeline()
    model = Model("m", {**adapter_of(SERVICE).example_parameters, "DataProcessing": {"JoinSource": "Input"}})
    ml = SimpleNamespace(
        model=lambda _: model, batch_predict=lambda *_: Accepted("t"), task_url=lambda _: "", tasks=lambda _: []
    )
    for module in (prepare, spread, submission, ingest, reconcile, publish):
        monkeypatch.setattr(module, "object_storage", lambda _: made.store)
    for module in (ingest, reconcile):
        monkeypatch.setattr(module, "outputs_store", lambda **_: made.store)
    for module in (prepare, ingest, reconcile, submission):
        monkeypatch.setattr(module, "OpenSearchMLHook", lambda _: SimpleNamespace(cluster=made.search, ml=ml))
    monkeypatch.setattr("opensearch_batch.operators.batch_predict.OpenSearchMLHook", lambda _: SimpleNamespace(ml=ml))
    monkeypatch.setattr(submission, "client_of", lambda *_, **__: SimpleNamespace(stage=lambda *_: {}))
    monkeypatch.setattr("airflow.sdk.execution_time.xcom.XCom.set", made.set_xcom)
    monkeypatch.setattr(JobHandle, "_objects", lambda _: made.store)
    monkeypatch.setattr(OpenSearchPrepareOperator, "_model", lambda *_, **__: model)
    return made
