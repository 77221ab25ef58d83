"""Runs the demo: a pipeline over sample passages, then prints its counts, the seconds per stage, and search results.

If the demo runs again, the pipeline finds its work done, and the demo prints that.
"""

from __future__ import annotations

import gzip
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import boto3
import msgspec
import requests
from rich.console import Console
from rich.table import Table

from include.local_stack.airflow_api import ENDED
from include.local_stack.buckets import create_bucket
from include.local_stack.stack import Stack, StackError
from include.local_stack.state import CREDENTIALS_FILE
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.manifest import Manifest

MODEL = "all-MiniLM-L6-v2"
# The pipeline and the index of each AI service's demo.
PIPELINES = {"sagemaker": "passages", **{name: f"passages_{name}" for name in ("openai", "bedrock", "cohere")}}
DOCUMENTS, WORK = "documents", "opensearch-batch"
SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "passages.jsonl.gz"
QUESTIONS = ("an animal that lives in the sea", "how do banks lend money", "disease of the lungs")
# Lucene collects k candidates per segment; with only as many as are shown, it can miss near ones.
SHOWN_HITS, CANDIDATES = 3, 50
STAGES = ("prepare", "batch_predict", "poll", "ingest", "repair", "reconcile", "publish")
COUNTED = ("read", "indexed", "unchanged", "dead_letters")
WAIT_S, TIMEOUT_S = 600, 30
console = Console(highlight=False, soft_wrap=True)


class Demo:
    """One run of a service's passages pipeline on a running stack."""

    # The demos of other pipelines override these names of stages and fields.
    stages: ClassVar[tuple[str, ...]] = STAGES
    text_field: ClassVar[str] = "text"
    vector_field: ClassVar[str] = "embedding"

    def __init__(self, stack: Stack, service: str, dag_id: str | None = None, index: str | None = None) -> None:
        self._stack = stack
        self._service = service
        self._dag_id = dag_id or PIPELINES[service]
        self._index = index or self._dag_id.replace("_", "-")
        self._airflow = stack.airflow_api()
        self._aws = boto3.Session(
            aws_access_key_id=stack.credentials.access_key,
            aws_secret_access_key=stack.credentials.secret_key,
            region_name="us-east-1",
        )
        self._s3: Any = self._aws.client("s3", endpoint_url=stack.addresses.s3)
        self._objects = S3Objects(self._s3)
        self._http = requests.Session()
        self._http.trust_env = False
        self._node = stack.node_session()

    def run(self) -> bool:
        """Run the pipeline and print the results; return False if the run failed."""
        self.provide()
        jobs, writes = self._jobs(), self._writes()
        self._airflow.wait_for_dag(self._dag_id)
        tasks = self._follow(self._airflow.trigger(self._dag_id))
        if tasks is None:
            return False
        self._show_counts(tasks, jobs=self._jobs() - jobs, writes=self._writes() - writes)
        self._ask(self._model_id())
        self._show_addresses()
        return True

    def run_once(self) -> bool:
        """Run the pipeline over the objects in its source; return False if the run failed."""
        self._provide_buckets()
        self._airflow.wait_for_dag(self._dag_id)
        return self._follow(self._airflow.trigger(self._dag_id)) is not None

    def _provide_buckets(self) -> None:
        for bucket in (DOCUMENTS, WORK):
            create_bucket(self._s3, bucket)

    def provide(self) -> None:
        """Upload the passages and create the SageMaker model, unless they exist."""
        self._provide_buckets()
        key = f"passages/{SAMPLE.name}"
        if self._objects.head(f"s3://{DOCUMENTS}/{key}") is None:
            self._s3.upload_file(str(SAMPLE), DOCUMENTS, key)
        self._provide_model()
        with gzip.open(SAMPLE) as sample:
            console.print(f"{sum(1 for _ in sample):,} passages in s3://{DOCUMENTS}/{key}")

    def _provide_model(self) -> None:
        sagemaker: Any = self._aws.client("sagemaker", endpoint_url=self._stack.addresses.ai_services)
        try:
            sagemaker.create_model(ModelName=MODEL)
        except sagemaker.exceptions.ClientError as error:
            if "already exist" not in str(error):
                raise

    def _follow(self, run_id: str) -> list[dict[str, Any]] | None:
        """Print the progress of a run until it ends; return its tasks, or None if it failed."""
        started = time.monotonic()
        tasks, state = self._watch(run_id, started)
        console.print(f"run {run_id}: {state} in {time.monotonic() - started:.1f} s")
        self._show_stages(tasks)
        if state == "success":
            return tasks
        self._show_failures(tasks)
        return None

    def _watch(self, run_id: str, started: float) -> tuple[list[dict[str, Any]], str]:
        """Print the progress of the stages whenever it changes; return the tasks and the state of the ended run."""
        shown = ""
        while time.monotonic() < started + WAIT_S:
            state = str(self._airflow.run(self._dag_id, run_id)["state"])
            tasks = self._airflow.tasks(self._dag_id, run_id)
            line = "   ".join(_progress(stage, tasks) for stage in self.stages)
            if line != shown:
                console.print(f"{time.monotonic() - started:6.1f} s   {line}")
                shown = line
            if state in ENDED:
                return tasks, state
            time.sleep(0.5)
        address = f"{self._stack.addresses.airflow}/dags/{self._dag_id}"
        raise StackError(f"run {run_id} did not end in {WAIT_S} s; see {address}")

    def _jobs(self) -> int:
        answer = self._http.get(f"{self._stack.addresses.ai_services}/jobs/count", timeout=TIMEOUT_S)
        return int(answer.json().get(self._service, 0))

    def _writes(self) -> int:
        """Return the number of index operations that the index has executed, 0 if it does not exist."""
        answer = self._node.get(f"{self._stack.addresses.opensearch}/{self._index}/_stats/indexing", timeout=TIMEOUT_S)
        if answer.status_code == requests.codes.not_found:
            return 0
        return int(answer.json()["_all"]["primaries"]["indexing"]["index_total"])

    def _show_stages(self, tasks: list[dict[str, Any]]) -> None:
        table = Table("stage", "tasks", "wall clock s", box=None, pad_edge=False)
        for stage in self.stages:
            of_stage = [task for task in tasks if task["task_id"] == stage and task["end_date"]]
            if of_stage:
                first = min(_at(task["start_date"]) for task in of_stage)
                last = max(_at(task["end_date"]) for task in of_stage)
                table.add_row(stage, str(len(of_stage)), f"{(last - first).total_seconds():.1f}")
        console.print(table)

    def _show_failures(self, tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            if task["state"] == "failed":
                console.print(f"{task['task_id']} {task['map_index']} failed:\n{self._airflow.log(task)[-3000:]}")

    def _show_counts(self, tasks: list[dict[str, Any]], *, jobs: int, writes: int) -> None:
        """Show the run's account, which reconcile has held against the manifest."""
        done = next((task for task in tasks if task["task_id"] == "reconcile" and task["state"] == "success"), None)
        counts = {} if done is None else self._airflow.xcom(done)["counts"]
        shown = ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in COUNTED if name in counts)
        console.print(f"{shown or 'Nothing changed'}; {jobs} batch jobs submitted, {writes:,} index operations")

    def _manifest(self, tasks: list[dict[str, Any]]) -> Manifest:
        prepare = next(task for task in tasks if task["task_id"] == "prepare")
        found: Manifest = self._load(_json(self._airflow.xcom(prepare, "run"))["manifest"], Manifest)
        return found

    def _model_id(self) -> str:
        """Return the model of the newest run that had something to do."""
        runs = self._airflow.call("GET", f"dags/{self._dag_id}/dagRuns", order_by="-id", limit=100)["dag_runs"]
        for run in runs:
            tasks = {task["task_id"]: task for task in self._airflow.tasks(self._dag_id, run["dag_run_id"])}
            try:
                return str(_json(self._airflow.xcom(tasks["prepare"], "run"))["model_id"])
            except requests.HTTPError as error:
                if error.response is None or error.response.status_code != requests.codes.not_found:
                    raise
        raise StackError(f"no run of {self._dag_id} has had something to do; make clean lets you begin again")

    def _load(self, uri: str, kind: Any) -> Any:  # noqa: ANN401 - one of the manifest's types
        stored = self._objects.read(uri)
        if stored is None:
            raise StackError(f"{uri} does not exist")
        return msgspec.json.decode(stored.content, type=kind)

    def _ask(self, model_id: str) -> None:
        """Search by text (the node embeds the question) and by vector (this program embeds it); compare the results."""
        for question in QUESTIONS:
            neural = {"neural": {self.vector_field: {"query_text": question, "model_id": model_id, "k": CANDIDATES}}}
            knn = {"knn": {self.vector_field: {"vector": self._embed(model_id, question), "k": CANDIDATES}}}
            by_text, by_vector = self._search(neural), self._search(knn)
            same = "same answers by knn" if by_text == by_vector else f"other answers by knn: {by_vector}"
            console.print(f"\n[bold]{question}?[/bold]   (neural query; {same})")
            for score, text in by_text:
                console.print(f"  {score:.3f}  {text[:100]}")

    def _embed(self, model_id: str, text: str) -> list[float]:
        body = {"text_docs": [text], "return_number": True, "target_response": ["sentence_embedding"]}
        answer = self._post(f"_plugins/_ml/_predict/text_embedding/{model_id}", body)
        vector: list[float] = answer["inference_results"][0]["output"][0]["data"]
        return vector

    def _search(self, query: dict[str, Any]) -> list[tuple[float, str]]:
        body = {"size": SHOWN_HITS, "_source": {"excludes": [self.vector_field]}, "query": query}
        hits = self._post(f"{self._index}/_search", body)["hits"]["hits"]
        return [(round(hit["_score"], 4), hit["_source"][self.text_field]) for hit in hits]

    def _post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        answer = self._node.post(f"{self._stack.addresses.opensearch}/{path}", json=body, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()

    def _show_addresses(self) -> None:
        secured = self._stack.addresses.ca_certs
        sign_in = f"   user admin, password in {self._stack.home / CREDENTIALS_FILE}" if secured else ""
        console.print(
            f"\nAirflow     {self._stack.addresses.airflow}/dags/{self._dag_id}   "
            f"user admin, password {self._stack.airflow_password()}\n"
            f"OpenSearch  {self._stack.addresses.opensearch}/{self._index}/_search?pretty{sign_in}\n"
            "The stack keeps running; make down stops it."
        )


def _progress(stage: str, tasks: list[dict[str, Any]]) -> str:
    of_stage = [task for task in tasks if task["task_id"] == stage]
    done = sum(task["state"] in {"success", "skipped"} for task in of_stage)
    waiting = sum(task["state"] == "deferred" for task in of_stage)
    return f"{stage} {done}/{len(of_stage)}" + (f" ({waiting} waiting)" if waiting else "")


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _json(value: Any) -> Any:  # noqa: ANN401 - an XCom
    return msgspec.json.decode(value) if isinstance(value, str) else value


def print_starts(line: str) -> None:
    """Print a message of the stack, except that a process runs already."""
    if "runs already" not in line:
        console.print(line)


def main() -> int:
    """Start the stack if it does not run, and run the demo of the service in the environment variable SERVICE."""
    service = os.environ.get("SERVICE") or "sagemaker"
    if service not in PIPELINES:
        console.print(f"demo: no service {service!r}; SERVICE is one of {', '.join(PIPELINES)}", style="red")
        return 2
    try:
        return 0 if Demo(Stack.up(say=print_starts), service).run() else 1
    except StackError as error:
        console.print(f"demo: {error}", style="red")
        return 1


if __name__ == "__main__":
    sys.exit(main())
