"""Pipelines that a test writes, in a folder of DAGs beside the repository's, as a user's own project has them."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from datetime import date
from typing import Any

import yaml

from include.local_stack.airflow_api import AirflowAPI, parse_again
from include.local_stack.settings import REPOSITORY
from tests.lab import Lab
from tests.waiting import WAIT_S, eventually

INDEX_BODY: dict[str, Any] = {
    "settings": {"index": {"knn": True, "number_of_shards": 1, "number_of_replicas": 0}},
    "mappings": {
        "properties": {
            "text": {"type": "text"},
            "embedding": {
                "type": "knn_vector",
                "dimension": 384,
                "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
            },
        }
    },
}


def records(first: int, count: int) -> list[dict[str, Any]]:
    """Make documents."""
    return [{"_id": f"d{number}", "text": f"passage number {number}"} for number in range(first, first + count)]


class Run:
    """One run of a pipeline."""

    def __init__(self, airflow: AirflowAPI, dag_id: str, run_id: str) -> None:
        self.airflow, self.dag_id, self.run_id = airflow, dag_id, run_id

    def wait(self) -> str:
        """Return the state it ended in; print the logs of tasks that failed, which a failed test shows."""
        state = self.airflow.wait(self.dag_id, self.run_id, wait_s=WAIT_S)
        for task in self.airflow.tasks(self.dag_id, self.run_id):
            if task["state"] == "failed":
                print(f"{self.dag_id}.{task['task_id']}: {self.airflow.log(task)}")  # noqa: T201 - as said above
        return state

    def task(self, task_id: str) -> dict[str, Any]:
        """Return an unmapped task's instance."""
        return next(task for task in self.airflow.tasks(self.dag_id, self.run_id) if task["task_id"] == task_id)

    def counts(self) -> dict[str, int]:
        """Return the run's counts, as reconcile returned them."""
        counts: dict[str, int] = self.airflow.xcom(self.task("reconcile"))["counts"]
        return counts

    def found_nothing(self) -> bool:
        """Whether prepare found nothing to do, so that no other stage ran."""
        states = {
            task["state"] for task in self.airflow.tasks(self.dag_id, self.run_id) if task["task_id"] != "prepare"
        }
        return states == {"skipped"}

    def log(self, task_id: str) -> str:
        """Return an unmapped task's log."""
        return self.airflow.log(self.task(task_id))


class OwnPipelines:
    """A user's pipelines, with a bucket for their documents and one for their work."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.airflow = lab.stack.airflow_api()
        self.folder = lab.stack.home / "airflow" / "include"
        for name in ("indexes", "pipelines"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "indexes" / "vectors.json").write_text(json.dumps(INDEX_BODY))
        for dag_file in ("pipelines.py", "refused_pipelines.py"):
            shutil.copy(REPOSITORY / "dags" / dag_file, lab.stack.home / "airflow" / "dags")
        self.documents, self.work_prefix = lab.new_bucket(), lab.new_bucket()

    def spec(self, name: str, **parts: Any) -> dict[str, Any]:
        """Return a pipeline that embeds what lies below its name's prefix; `parts` are merged into it."""
        common: dict[str, Any] = {
            "source": {"uri": f"s3://{self.documents}/{name}/"},
            "id": "$._id",
            "work_prefix": f"s3://{self.work_prefix}/{name}",
            "batch_predict": {
                "service": "sagemaker",
                "connector": "sagemaker",
                "values": {
                    "region": "us-east-1",
                    "model_name": "all-MiniLM-L6-v2",
                    "endpoint_name": "all-MiniLM-L6-v2",
                },
                "input": "$.text",
                "poll_every_s": 1,
                "retry_interval_s": 1,
            },
            "ingest": {
                "index": name.replace("_", "-"),
                "index_body": "vectors",
                "field_map": {"text": "$.text", "embedding": "prediction"},
            },
        }
        return _merged(common, parts)

    def write(self, name: str, spec: Mapping[str, Any]) -> None:
        """Write a pipeline's file."""
        self.write_text(name, yaml.safe_dump(dict(spec), sort_keys=False))

    def write_text(self, name: str, text: str) -> None:
        """Write the text of a pipeline's file."""
        self.write_texts({name: text})

    def write_texts(self, texts: Mapping[str, str]) -> None:
        """Write the texts of the files of pipelines."""
        for name, text in texts.items():
            (self.folder / "pipelines" / f"{name}.yaml").write_text(text)
        self.lab.stack.deploy()
        parse_again([self.lab.stack.home / "airflow" / "dags"])

    def add(self, **parts: Any) -> str:
        """Write a pipeline with a name of its own and wait until Airflow has it; return its name."""
        name = self.new_name()
        self.write(name, self.spec(name, **parts))
        self.airflow.wait_for_dag(name)
        return name

    def new_name(self) -> str:
        """Return a name that no pipeline has."""
        return f"p_{uuid.uuid4().hex[:8]}"

    def put(self, key: str, first: int, count: int) -> None:
        """Write documents."""
        body = b"".join(json.dumps(record).encode() + b"\n" for record in records(first, count))
        self.lab.s3.put_object(Bucket=self.documents, Key=key, Body=body)

    def run(self, name: str, conf: Mapping[str, Any] | None = None, **more: Any) -> Run:
        """Start a run."""
        body = {"logical_date": None, "conf": dict(conf or {}), **more}
        run = self.airflow.call("POST", f"dags/{name}/dagRuns", body)
        return Run(self.airflow, name, run["dag_run_id"])

    def links(self, run: Run, task_id: str, map_index: int = -1) -> dict[str, str]:
        """Return a task's links by their names."""
        path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/links"
        found: dict[str, str] = self.airflow.call("GET", path, map_index=map_index)["extra_links"]
        return found

    def runs(self, name: str) -> list[Run]:
        """Return a pipeline's runs, oldest first."""
        found = self.airflow.call("GET", f"dags/{name}/dagRuns", order_by="id", limit=100)["dag_runs"]
        return [Run(self.airflow, name, run["dag_run_id"]) for run in found]

    def wait_for_runs(self, name: str, count: int) -> list[Run]:
        """Return a pipeline's runs as soon as there are so many."""

        def there() -> list[Run] | None:
            found = self.runs(name)
            return found if len(found) >= count else None

        return eventually(there, f"run {count} of {name}")

    def backfill(self, name: str, first: str, last: str, *, at_once: int = 4, again: bool = False) -> None:
        """Run a pipeline for all dates, and wait for the end."""
        days = (date.fromisoformat(first), date.fromisoformat(last))
        reprocess = "completed" if again else "none"
        backfill = self.airflow.backfill(name, *days, at_once=at_once, reprocess=reprocess)
        self.airflow.wait_for_backfill(backfill, wait_s=5 * WAIT_S)

    def pause(self) -> None:
        """Pause the pipelines in the folder, so that their schedules take no time from later tests."""
        for dag in self.airflow.call("GET", "dags", limit=100, paused="false")["dags"]:
            if str(dag["fileloc"]).startswith(str(self.lab.stack.home)):
                self.airflow.call("PATCH", f"dags/{dag['dag_id']}", {"is_paused": True})

    def count(self, index: str) -> int:
        """Return how many documents an index has."""
        self.lab.node("POST", f"{index}/_refresh")
        return int(self.lab.node("GET", f"{index}/_count")["count"])

    def writes(self, index: str) -> int:
        """Return how many index operations an index ever saw."""
        return self.lab.writes(index)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for key, value in other.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return {key: value for key, value in merged.items() if value is not None}
