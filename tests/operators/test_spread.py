"""The stages of a large source give the run that prepare gives, and are skipped for a small one."""

from __future__ import annotations

import json

import pytest
from airflow.sdk.exceptions import AirflowFailException

from opensearch_batch.core.storage.objects import list_objects
from opensearch_batch.operators.spread import OpenSearchSplitOperator
from tests.core.memory_objects import MemoryObjects
from tests.operators.whole_run import NAME, WORK_PREFIX, Pipeline, pipeline

SPREAD = ("split", "read", "compare", "stage", "reserve")


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline with 40 records in three objects."""
    made = pipeline(monkeypatch)
    for name, first, count in (("a.jsonl", 0, 30), ("b.jsonl", 30, 5), ("c.jsonl", 35, 5)):
        made.write(
            name, (json.dumps({"id": n, "text": f"text {n % 25}"}).encode() for n in range(first, first + count))
        )
    return made


def documents(books: Pipeline) -> int:
    """Return the number of documents in the index."""
    return len(books.search.indexes[NAME].documents)


def test_several_tasks_prepare_a_large_source(books: Pipeline) -> None:
    """Equal texts of several splits are paid for once; the groups are the value of prepare."""
    books.split_bytes = 300
    books.run("manual__1")
    assert set(SPREAD) <= books.ended.keys()
    (group,) = books.xcoms["prepare", "return_value"]
    assert books.lengths["prepare", "return_value"] == 1
    (shard,) = group["shards"]
    assert (shard["records"], shard["documents"]) == (25, 40)
    assert len(shard["more_staged"]) > 1
    assert documents(books) == 40
    assert books.xcoms["reconcile", "return_value"]["counts"]["paid"] == 25
    assert isinstance(books.store, MemoryObjects)
    assert any("/spread/" in item.uri for item in list_objects(books.store, f"{WORK_PREFIX}/{NAME}/"))


def test_a_small_change_skips_the_other_tasks(books: Pipeline) -> None:
    """Though the source is large; nothing more is stored than without them."""
    books.split_bytes = 600
    books.run("manual__1")
    books.write("c.jsonl", [json.dumps({"id": 99, "text": "new"}).encode()])
    books.run("manual__2")
    assert books.skipped == {"split"}
    assert set(SPREAD).isdisjoint(books.ended)
    assert books.lengths["prepare", "return_value"] == len(books.xcoms["prepare", "return_value"]) == 2
    assert documents(books) == 36


def test_a_run_without_a_plan_has_nothing_to_split(books: Pipeline) -> None:
    """A user may clear the task alone."""
    books.run("manual__1")
    task = OpenSearchSplitOperator(task_id="split", work_prefix=WORK_PREFIX)
    with pytest.raises(AirflowFailException, match="this run was prepared by one task, so there is nothing to split"):
        task.execute(books.context("manual__1", "split"))
