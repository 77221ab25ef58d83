"""The sample of OpenSearch Ingestion's documentation, unchanged but for its placeholders, from S3 to answers.

Shows only what it measured, then what becomes of rows that the sample's route does not take, then what its lint says.
Run again, it finds nothing new, and says so.
"""

from __future__ import annotations

import gzip
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import requests
from opensearchpy import OpenSearch

from include.local_stack.buckets import create_bucket
from include.local_stack.demo import MODEL, SAMPLE, TIMEOUT_S, WAIT_S, Demo, console, print_starts
from include.local_stack.settings import REPOSITORY
from include.local_stack.stack import Stack, StackError
from opensearch_batch.core.data_prepper.check import check_data_prepper
from opensearch_batch.core.data_prepper.scan_prepare import ScanManifest
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.opensearch.ml_commons import MLCommons, fill
from opensearch_batch.core.pipeline.bodies import packaged_body

PRINTED = SAMPLE.parent / "data_prepper" / "sagemaker_batch_job.yaml"
# What the sample calls its pipeline, its index, its input prefix, and the bucket for what no job could be made of.
DAG_ID, INDEX = "sagemaker-batch-job-pipeline", "test-nlp-index"
INPUT, DLQ = "sagemaker/sagemaker_djl_batch_input/", "batch-inference-dlq"
BUCKET, REGION, ACCOUNT = "offlinebatch", "us-east-1", "123456789012"
FILE = "sagemaker_batch_job_pipeline.yaml"
WITH_TITLE, WITHOUT_TITLE = 300, 50
# A line of Airflow's log is a dictionary as Python writes it.
UNROUTED = re.compile(r"'event': '([^']* unrouted, [^']*)'")
COUNTED = ("read", "indexed", "unchanged", "dead letters", "unrouted", "dropped")


class DataPrepperDemo(Demo):
    """The sample on a running stack.

    Args:
        stack: the stack.
        folder: where its Airflow looks for pipelines.
    """

    stages = ("prepare", "batch_predict", "poll", "ingest", "rows", "ingest_rows", "reconcile", "publish")
    text_field = "chapter"
    vector_field = "chapter_embedding"

    def __init__(self, stack: Stack, folder: Path) -> None:
        super().__init__(stack, "sagemaker", dag_id=DAG_ID, index=INDEX)
        self._file = folder / FILE

    def run(self) -> bool:
        """Run the sample, ask, and run it on rows without a title; False when a run failed."""
        model_id = self._register()
        for bucket in (BUCKET, DLQ):
            create_bucket(self._s3, bucket)
        self._fill_in(model_id)
        rows = _passages()
        for name in ("first", "second"):
            self._put(name, list(islice(rows, WITH_TITLE)))
        ran_before = bool(self._runs())
        if not self._scan(self._trigger if ran_before else self._first_run):
            return False
        self._ask(model_id)
        untitled = [{"_id": row["_id"], "text": row["text"]} for row in islice(rows, WITHOUT_TITLE)]
        console.print()
        if self._put("untitled", untitled) and not self._scan(self._trigger):
            return False
        self._show_lint()
        self._show_addresses()
        return True

    def _register(self) -> str:
        """Register the documents' model, which a user of OpenSearch Ingestion has already; return its id."""
        self._provide_model()
        connector = packaged_body("connector", "sagemaker")
        del connector["credential"]
        body = fill(connector, {"region": REGION, "model_name": MODEL, "endpoint_name": MODEL}, "connector")
        # Each row of the documents is a record; its text alone is the model's.
        body["parameters"]["DataProcessing"]["InputFilter"] = "$.text"
        keys = self._stack.credentials
        credential = {"access_key": keys.access_key, "secret_key": keys.secret_key}
        node = OpenSearch(self._stack.addresses.opensearch, max_retries=0, timeout=TIMEOUT_S)
        ml = MLCommons(Cluster(node, self._stack.addresses.opensearch))
        return ml.ensure_model(f"Data Prepper: {MODEL}", {**body, "credential": credential}).id

    def _fill_in(self, model_id: str) -> None:
        """Write the sample with its placeholders filled in, and nothing else changed."""
        printed = filled = PRINTED.read_text()
        for placeholder, value in (
            (
                "https://search-AWStest-offlinebatch-123456789abcdef.us-west-2.es.amazonaws.com",
                self._stack.addresses.opensearch,
            ),
            ("name: name", f"name: {BUCKET}"),
            ("region: name", f"region: {REGION}"),
            ("us-west-2", REGION),
            ("account_ID", ACCOUNT),
            ("AWStest-offlinebatch", BUCKET),
            ('"model_ID"', f'"{model_id}"'),
        ):
            filled = filled.replace(placeholder, value)
        self._file.write_text(filled)
        self._stack.deploy()
        lines = list(zip(printed.splitlines(), filled.splitlines(), strict=True))
        changed = sum(one != other for one, other in lines)
        console.print(
            f"{_shown(self._file)}: the sample, placeholders filled in on {changed} of its {len(lines)} lines"
        )

    def _put(self, name: str, rows: list[dict[str, str]]) -> bool:
        """Write an object of rows among the inputs; False when it is there already."""
        uri = f"s3://{BUCKET}/{INPUT}{name}.json"
        what = f"{len(rows)} rows with {', '.join(rows[0])}"
        new = self._objects.head(uri) is None
        if new:
            self._objects.write(uri, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        console.print(f"{uri}: {what}{'' if new else '; it was there already'}")
        return new

    def _runs(self) -> list[dict[str, Any]]:
        """Return the runs of the sample's DAG, none before Airflow has it."""
        try:
            found: list[dict[str, Any]] = self._airflow.call("GET", f"dags/{DAG_ID}/dagRuns", order_by="id")["dag_runs"]
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != requests.codes.not_found:
                raise
            return []
        return found

    def _trigger(self) -> str:
        self._airflow.wait_for_dag(DAG_ID)
        return self._airflow.trigger(DAG_ID)

    def _first_run(self) -> str:
        """Switch the DAG on, and return the run that it starts by itself."""
        self._airflow.wait_for_dag(DAG_ID)
        give_up_at = time.monotonic() + WAIT_S
        while time.monotonic() < give_up_at:
            if runs := self._runs():
                return str(runs[0]["dag_run_id"])
            time.sleep(0.5)
        raise StackError(f"{DAG_ID} started no run in {WAIT_S} s; see {self._stack.addresses.airflow}/dags/{DAG_ID}")

    def _scan(self, start: Callable[[], str]) -> bool:
        """Start a run and show it; False when it failed."""
        jobs, writes = self._jobs(), self._writes()
        tasks = self._follow(start())
        if tasks is None:
            return False
        done = {task["task_id"]: task for task in tasks}
        objects = self._load(self._airflow.xcom(done["prepare"], "run")["manifest"], ScanManifest).counts
        counts = self._airflow.xcom(done["reconcile"])["counts"]
        jobs, writes = self._jobs() - jobs, self._writes() - writes
        said = ", ".join(f"{counts[name.replace(' ', '_')]:,} {name}" for name in COUNTED)
        console.print(
            f"{objects.found} objects found, {objects.new} new, {objects.held_back} written by jobs of its own\n"
            f"{said}; {jobs} batch job{'' if jobs == 1 else 's'} submitted, {writes:,} index operations"
        )
        if (objects.new, jobs, writes) == (0, 0, 0):
            console.print("Nothing is new: no job was submitted and nothing was written.")
        if said_so := UNROUTED.search(self._airflow.log(done["reconcile"])):
            console.print(f"reconcile: {said_so[1]}")
        return True

    def _show_lint(self) -> None:
        """Show the lint findings of the file before it runs."""
        findings = check_data_prepper(self._file).findings
        console.print(f"\nopensearch-batch check {_shown(self._file)}: {len(findings)} findings, by line")
        for finding in findings:
            console.print(f"  {finding.line:2}  {finding.text}")


def _passages() -> Iterator[dict[str, str]]:
    """Yield the passages as rows like the documents', with the title that the sample's route asks for."""
    with gzip.open(SAMPLE) as sample:
        for line in sample:
            passage = msgspec.json.decode(line)
            yield {"_id": passage["_id"], "title": passage["metadata"]["lemma"], "text": passage["text"]}


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


def _plain(stack: Stack) -> Stack:
    if stack.addresses.ca_certs:
        raise StackError("the sample signs its requests, which a node with SECURITY=on does not know; leave it off")
    return stack


def main() -> int:
    """Start the stack if it is not up, and run the sample from the folder PIPELINES, which is include/pipelines."""
    folder = Path(os.environ.get("PIPELINES") or REPOSITORY / "include" / "pipelines")
    try:
        return 0 if DataPrepperDemo(_plain(Stack.up(say=print_starts)), folder).run() else 1
    except StackError as error:
        console.print(f"data-prepper: {error}", style="red")
        return 1


if __name__ == "__main__":
    sys.exit(main())
