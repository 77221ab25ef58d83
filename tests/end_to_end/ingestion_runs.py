"""Runs of the DAGs `batch_ingestion` and `replay` over REST, and the files at OpenAI that they read."""

from __future__ import annotations

import json
import os
import signal
import uuid
from typing import Any

import pytest
import requests

from include.local_stack.airflow_api import AirflowAPI
from tests.lab import Lab
from tests.serving import Server
from tests.waiting import WAIT_S, eventually

MAX_XCOM_BYTES = 2048
FIELD_MAP = {
    "chapter": "$.content[0]",
    "title": "$.content[1]",
    "chapter_embedding": "$.SageMakerOutput[0]",
    "title_embedding": "$.SageMakerOutput[1]",
    "_id": "$.id",
}
VECTOR = {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene"}}
INDEX_BODY = {
    "settings": {"index.knn": True, "number_of_replicas": 0},
    "mappings": {"properties": {"chapter_embedding": VECTOR, "title_embedding": VECTOR, "year": {"type": "integer"}}},
}


class Runs:
    """Runs of the two DAGs."""

    def __init__(self, lab: Lab, airflow: AirflowAPI, bucket: str, index: str) -> None:
        self.lab, self.airflow, self.bucket, self.index = lab, airflow, bucket, index

    def rows(self, name: str, rows: list[dict[str, Any]]) -> str:
        """Put a source into S3."""
        uri = f"s3://{self.bucket}/{name}"
        self.lab.objects.write(uri, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        return uri

    def request(self, *sources: str, **more: Any) -> dict[str, Any]:
        """Make the body of a request."""
        return {
            "index_name": self.index,
            "field_map": FIELD_MAP,
            "ingest_fields": ["$.id"],
            "data_source": {"type": "s3", "source": list(sources)},
            "index_body": INDEX_BODY,
            "work_prefix": f"s3://{self.bucket}/work",
            **more,
        }

    def run(self, dag_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        """Run a DAG to its end and return its one task instance."""
        return self.ended(dag_id, self.airflow.trigger(dag_id, conf))

    def ended(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Wait for the end of a run and return its one task instance."""
        self.airflow.wait(dag_id, run_id, wait_s=WAIT_S)
        (task,) = self.airflow.tasks(dag_id, run_id)
        return task

    def kill(self, dag_id: str, run_id: str) -> int:
        """Kill the process of a run's task once something is settled, and return how much."""
        settled = eventually(self._settled, f"progress of run {run_id}")
        (task,) = self.airflow.tasks(dag_id, run_id)
        os.kill(task["pid"], signal.SIGKILL)
        return settled

    def _settled(self) -> int:
        """Return how many rows the first progress file counts as settled."""
        for found in self.lab.objects.list(f"s3://{self.bucket}/work/"):
            stored = self.lab.objects.read(found.uri) if found.uri.endswith("/progress.json") else None
            if stored and (settled := int(json.loads(stored.content)["settled"])):
                return settled
        return 0

    def succeeded(self, dag_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        """Run a DAG and return what its task returned."""
        task = self.run(dag_id, conf)
        assert task["state"] == "success", self.airflow.log(task)
        return self.returned(task)

    def returned(self, task: dict[str, Any]) -> dict[str, Any]:
        """Return a task's XCom, as Airflow keeps it."""
        value = self.airflow.xcom(task)
        assert len(json.dumps(value)) <= MAX_XCOM_BYTES
        found: dict[str, Any] = value
        return found

    def refused(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Return what Airflow answers to a conf that it refuses."""
        with pytest.raises(requests.HTTPError, match=r": 400 ") as error:
            self.airflow.trigger(dag_id, conf)
        assert error.value.response.status_code == requests.codes.bad_request
        return str(error.value.response.json()["detail"])

    def failed(self, conf: dict[str, Any]) -> str:
        """Return the log of a run that fails at its first attempt."""
        task = self.run("batch_ingestion", conf)
        assert (task["state"], task["try_number"]) == ("failed", 1)
        return self.airflow.log(task)

    def documents(self) -> dict[str, Any]:
        """Return what the index holds."""
        return self.lab.documents(self.index)

    def writes(self) -> int:
        """Count the index operations the index ever saw."""
        return self.lab.writes(self.index)


class FilesAPI(Server):
    """OpenAI's Files API on loopback, as far as reading goes; anyone without its key is refused."""

    def __init__(self) -> None:
        self.key = f"sk-{uuid.uuid4().hex}"
        self.files: dict[str, list[dict[str, Any]]] = {}
        super().__init__(lambda request: request.reply(*self.answer(request.path, request.headers["Authorization"])))

    def answer(self, path: str, authorization: str) -> tuple[int, bytes]:
        """Return status and body."""
        file_id, _, content = path.removeprefix("/v1/files/").partition("/")
        if authorization != f"Bearer {self.key}":
            return 401, b'{"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}}'
        rows = b"".join(json.dumps(row).encode() + b"\n" for row in self.files[file_id])
        about = {"id": file_id, "object": "file", "bytes": len(rows), "created_at": 1, "filename": "rows.jsonl"}
        return 200, rows if content else json.dumps({**about, "purpose": "batch", "status": "processed"}).encode()


def files_with(lab: Lab, text: str) -> list[str]:
    """Return the names of all files of the stack that hold a text: Airflow's database, its logs, the servers' logs."""
    files = [path for folder in ("airflow", "logs") for path in (lab.stack.home / folder).rglob("*") if path.is_file()]
    assert any(path.name == "airflow.db" for path in files)
    assert any(path.name == "airflow-api-server.log" for path in files)
    return [str(path) for path in files if text.encode() in path.read_bytes()]
