"""The demo's own flow: 2,000 passages from S3 to answers, on a real stack, and the second run that does nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include.local_stack.ai_services.model import MiniLM, fetch
from include.local_stack.airflow_api import AirflowAPI
from include.local_stack.settings import REPOSITORY
from tests.lab import Lab
from tests.waiting import WAIT_S

SAMPLE = REPOSITORY / "include" / "samples" / "passages.jsonl.gz"
MAX_XCOM_BYTES = 2048


class Outcome:
    """A finished run."""

    def __init__(self, airflow: AirflowAPI, dag_id: str, conf: dict[str, Any] | None = None) -> None:
        airflow.wait_for_dag(dag_id)
        self.run_id = airflow.trigger(dag_id, conf)
        self.state = airflow.wait(dag_id, self.run_id, wait_s=WAIT_S)
        self.tasks = airflow.tasks(dag_id, self.run_id)
        self.airflow, self.dag_id = airflow, dag_id
        self.paid = 0

    def of(self, stage: str) -> list[dict[str, Any]]:
        """Return the task instances of a stage."""
        return [task for task in self.tasks if task["task_id"] == stage]

    def counts(self) -> dict[str, int]:
        """Add up what ingest returned for each shard."""
        reports = [report["counts"] for task in self.of("ingest") for report in self.airflow.xcom(task)]
        return {name: sum(report[name] for report in reports) for name in reports[0]}


@pytest.fixture(scope="module")
def first(lab: Lab) -> Outcome:
    """The first run of the passages pipeline on a fresh stack."""
    for bucket in ("documents", "opensearch-batch"):
        lab.s3.create_bucket(Bucket=bucket)
    lab.s3.upload_file(str(SAMPLE), "documents", "passages/passages.jsonl.gz")
    jobs_before = lab.jobs()
    outcome = Outcome(lab.stack.airflow_api(), "passages")
    outcome.paid = lab.jobs() - jobs_before
    return outcome


def test_every_passage_is_indexed_with_the_models_own_vector(lab: Lab, first: Outcome, model_dir: Path) -> None:
    """2,000 documents, each with a cosine of at least 0.99999 to what the model gives for its text."""
    assert first.state == "success"
    assert first.counts()["indexed"] == 2000
    with gzip.open(SAMPLE) as sample:
        passages = {record["_id"]: record for record in map(json.loads, sample)}
    body = {"size": 10_000, "query": {"match_all": {}}}
    hits = lab.node("POST", "passages/_search", body)["hits"]["hits"]
    assert {hit["_id"] for hit in hits} == set(passages)
    own = MiniLM(model_dir).encode([passages[hit["_id"]]["text"] for hit in hits])
    indexed = np.array([hit["_source"]["embedding"] for hit in hits], dtype=np.float64)
    cosines = (own * indexed).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(indexed, axis=1)
    assert cosines.min() >= 0.99999
    for hit in hits:
        passage = passages[hit["_id"]]
        expected = {"text": passage["text"], "lemma": passage["metadata"]["lemma"]}
        assert expected.items() <= hit["_source"].items()


def test_waiting_takes_no_worker_and_xcoms_are_small(first: Outcome) -> None:
    """The poll ended without a process of a worker; no XCom exceeds 2 KB."""
    (poll,) = first.of("poll")
    assert (poll["state"], poll["pid"], poll["hostname"]) == ("success", None, "")
    assert all(task["pid"] for task in first.of("ingest"))
    for task in first.tasks:
        path = f"dags/passages/dagRuns/{first.run_id}/taskInstances/{task['task_id']}/xcomEntries"
        for entry in first.airflow.call("GET", path, map_index=task["map_index"])["xcom_entries"]:
            value = first.airflow.xcom(task, entry["key"])
            assert len(json.dumps(value)) <= MAX_XCOM_BYTES, (task["task_id"], entry["key"])


@pytest.mark.slow
def test_the_second_run_finds_the_work_done(lab: Lab, first: Outcome) -> None:
    """One job per shard after two runs, not one more index operation, and no task after prepare."""
    assert first.state == "success"
    jobs, writes = lab.jobs(), lab.writes("passages")
    second = Outcome(first.airflow, "passages")
    assert second.state == "success"
    assert {task["state"] for task in second.tasks if task["task_id"] != "prepare"} == {"skipped"}
    assert (first.paid, lab.jobs()) == (4, jobs)
    assert lab.writes("passages") == writes


def test_a_run_without_failures_starts_no_process_for_a_repair(first: Outcome) -> None:
    """`repair` ends in the triggerer, and nothing is left for `ingest_repaired`."""
    (repair,) = first.of("repair")
    assert (repair["state"], repair["pid"], repair["hostname"]) == ("skipped", None, "")
    (repaired,) = first.of("ingest_repaired")
    assert (repaired["state"], repaired["pid"]) == ("skipped", None)
    (reconcile,) = first.of("reconcile")
    counts = first.airflow.xcom(reconcile)["counts"]
    assert (counts["read"], counts["indexed"], counts["paid"], counts["shards"]) == (2000, 2000, 2000, 4)


@pytest.mark.slow
def test_another_dag_on_the_same_documents_pays_nothing(lab: Lab, first: Outcome) -> None:
    """The job key lies outside any run and any DAG: the example by hand ingests what was predicted before."""
    assert first.state == "success"
    jobs = lab.jobs()
    by_hand = Outcome(first.airflow, "example_by_hand")
    assert by_hand.state == "success"
    assert (by_hand.counts()["indexed"], lab.jobs()) == (2000, jobs)
    assert lab.node("GET", "passages-by-hand/_count")["count"] == 2000


def test_a_question_finds_its_passage_by_text_and_by_vector(lab: Lab, first: Outcome, model_dir: Path) -> None:
    """A neural query, embedded by the node through the connector, agrees with a knn query of our own vector."""
    assert first.state == "success"
    # Other tests' models are deployed too; a search shows ten unless it is asked for more.
    deployed = {"size": 1000, "query": {"term": {"model_state": "DEPLOYED"}}}
    models = lab.node("POST", "_plugins/_ml/models/_search", deployed)
    model_id = next(hit["_id"] for hit in models["hits"]["hits"] if hit["_source"]["name"].endswith("all-MiniLM-L6-v2"))
    question = "an animal that lives in the sea"
    vector = MiniLM(model_dir).encode([question])[0].tolist()
    answers = []
    for query in (
        {"neural": {"embedding": {"query_text": question, "model_id": model_id, "k": 3}}},
        {"knn": {"embedding": {"vector": vector, "k": 3}}},
    ):
        body = {"size": 3, "_source": {"excludes": ["embedding"]}, "query": query}
        hits = lab.node("POST", "passages/_search", body)["hits"]["hits"]
        assert all("embedding" not in hit["_source"] for hit in hits)
        answers.append([hit["_id"] for hit in hits])
    assert answers[0] == answers[1]
    assert len(answers[0]) == 3


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The model the AI services compute with."""
    return fetch(REPOSITORY / ".cache" / "model")


@pytest.mark.slow
def test_the_demo_says_what_it_finds(lab: Lab, first: Outcome) -> None:
    """`make demo` on this stack: counts that reconcile, three answered questions, and that nothing was left to do."""
    assert first.state == "success"
    said = lab.run("demo")
    assert "Nothing changed; 0 batch jobs submitted, 0 index operations" in said
    assert said.count("same answers by knn") == 3
