"""What the stages make of the run they are in: what a trial leaves to others, and what a person asked."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from opensearch_batch import prepare
from opensearch_batch.core.job import Asked, End, JobRecord, decide, honoured
from opensearch_batch.core.listing import list_source, news_of
from opensearch_batch.core.manifest import WorkPrefix
from opensearch_batch.core.ml_commons import Model
from opensearch_batch.core.s3 import S3Objects
from opensearch_batch.prepare import OpenSearchPrepareOperator
from opensearch_batch.services import service
from opensearch_batch.stage import asked_in
from tests.core.aws import aws

NAME = "books"
PARAMETERS = {
    "ModelName": "m",
    "TransformInput": {"SplitType": "Line"},
    "TransformOutput": {"AssembleWith": "Line"},
    "TransformResources": {},
    "DataProcessing": {"JoinSource": "Input", "InputFilter": "$.text"},
}


class Ti:
    """A task instance that keeps what it is told."""

    max_tries = 2

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, *, key: str, value: Any) -> None:
        """Keep it."""
        self.pushed[key] = value


def context_of(run_id: str = "manual__1", ti: Any = None, **params: Any) -> dict[str, Any]:
    """Return what a task is given in a run of one partition."""
    run = SimpleNamespace(dag_id=NAME, partition_key="2026-11-01", logical_date=None, run_id=run_id)
    return {"dag_run": run, "ti": ti or Ti(), "params": params}


@pytest.fixture(scope="module")
def s3_client() -> Iterator[Any]:
    """A boto3 client of an S3 server of these tests' own."""
    with aws("s3") as client:
        yield client


@pytest.fixture
def bucket(s3_client: Any) -> str:
    """A new empty bucket."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> S3Objects:
    """The object storage of every connection; model and index are there and fit."""
    found = S3Objects(s3_client)
    monkeypatch.setattr(prepare, "objects", lambda conn_id: found)  # noqa: ARG005 - one for all
    monkeypatch.setattr(OpenSearchPrepareOperator, "_model", lambda self, **_: Model("m", PARAMETERS))  # noqa: ARG005 - as above
    monkeypatch.setattr(OpenSearchPrepareOperator, "_check_index", lambda *_, **__: [])
    return found


@pytest.mark.parametrize(
    ("said", "news"),
    [
        ({}, "none"),
        ({"limit": "1"}, "unheard"),
        ({"index": "other"}, "unheard"),
        ({"service": "bedrock"}, "unheard"),
        ({"dry_run": True}, "unheard"),
    ],
)
def test_a_trial_leaves_the_source_news(
    bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], news: str
) -> None:
    """Only what the pipeline's own run prepared is what `new_objects` need not tell of."""
    # One service's parameters will do here: what counts is which one was chosen.
    adapter = service("sagemaker")
    monkeypatch.setattr(prepare, "service", lambda name: adapter)  # noqa: ARG005 - as above
    store.write(f"s3://{bucket}/in/a.jsonl", b'{"text": "a"}\n{"text": "b"}\n')
    dry_run = said.pop("dry_run", False)
    task = OpenSearchPrepareOperator(
        task_id="prepare",
        source=f"s3://{bucket}/in/",
        work=f"s3://{bucket}/work",
        field_map={"text": "$.text"},
        inputs=["$.text"],
        watched={"index": "books", "service": "sagemaker"},
        **{"index": "books", "service": "sagemaker", "limit": "", **said},
    )
    shards = task.execute(context_of(dry_run=dry_run))
    assert len(shards) == (0 if dry_run else 1)
    found = list_source(store, f"s3://{bucket}/in/")
    assert news_of(store, WorkPrefix(f"s3://{bucket}/work", NAME), found) == news


def asked(run_id: str, *, max_tries: int = 2, force: bool = False) -> Asked:
    """Return what is asked in a task with two retries."""
    return asked_in(context_of(run_id, SimpleNamespace(max_tries=max_tries), force=force), 2)


def ended(asked: Asked, state: Any) -> JobRecord:
    """Return the record of the job that this asking paid for."""
    return JobRecord(
        "j", "n", "sagemaker", "m", "i", "o", 0.0, honoured=honoured([], asked), task_id="t", end=End(state, 0.0)
    )


def test_each_forced_run_of_one_partition_pays_once() -> None:
    """Its retries and clears find what it paid for; the next run that a person forces asks anew."""
    first = ended(asked("manual__1", force=True), "COMPLETED")
    assert decide(first, asked("manual__1", force=True)) == "reuse"
    assert decide(first, asked("manual__1", force=True, max_tries=5)) == "reuse"
    assert decide(first, asked("manual__2")) == "reuse"
    assert decide(first, asked("manual__2", force=True)) == "again"


def test_each_cleared_run_of_one_partition_pays_once() -> None:
    """A job that ended badly again in another run can be asked for again there."""
    first = ended(asked("manual__1", max_tries=5), "FAILED")
    assert decide(first, asked("manual__1", max_tries=5)) == "refuse"
    assert decide(first, asked("manual__2")) == "refuse"
    assert decide(first, asked("manual__2", max_tries=5)) == "again"
