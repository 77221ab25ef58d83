"""ML Commons `_batch_ingestion`, which OpenSearch 2.19 still has, on the same node; its S3 is the stack's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import boto3

from benchmarks.client import Measured
from benchmarks.node import INDEX, Node
from benchmarks.rows import FIELD_MAP, INGEST_FIELDS

BUCKET, KEY, REGION = "bench", "rows.jsonl", "us-east-1"
LOOK_EVERY_S = 0.1
FINAL = ("COMPLETED", "FAILED")


class MLCommons:
    """The node as its own client.

    Args:
        node: what is measured.
        rows: the file to ingest; it is put into S3 here, before any clock starts.
    """

    def __init__(self, node: Node, rows: Path) -> None:
        self._node = node
        self._put(rows)
        self._make_task_index()

    def run(self, documents: int) -> Measured:
        """Ingest the file.

        Raises:
            RuntimeError: the task failed.
        """
        began = time.perf_counter()
        task_id = self._node.call("POST", "_plugins/_ml/_batch_ingestion", self._request())["task_id"]
        while (task := self._node.call("GET", f"_plugins/_ml/tasks/{task_id}"))["state"] not in FINAL:
            time.sleep(LOOK_EVERY_S)
        if task["state"] != "COMPLETED":
            raise RuntimeError(f"_batch_ingestion: {task}")
        self._node.call("POST", f"{INDEX}/_refresh")
        return Measured(documents, time.perf_counter() - began)

    def _request(self) -> dict[str, Any]:
        keys = self._node.stack.credentials
        return {
            "index_name": INDEX,
            "field_map": FIELD_MAP,
            "ingest_fields": INGEST_FIELDS,
            # 2.19 swaps region and session token, so the region has to stand in both.
            "credential": {
                "region": REGION,
                "access_key": keys.access_key,
                "secret_key": keys.secret_key,
                "session_token": REGION,
            },
            "data_source": {"type": "s3", "source": [f"s3://{BUCKET}/{KEY}"]},
        }

    def _put(self, rows: Path) -> None:
        keys = self._node.stack.credentials
        client = boto3.client(
            "s3",
            endpoint_url=self._node.stack.addresses.s3,
            region_name=REGION,
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
        )
        client.create_bucket(Bucket=BUCKET)
        client.upload_file(str(rows), BUCKET, KEY)
        client.close()

    def _make_task_index(self) -> None:
        """Register a model: until some task exists, 2.19 refuses the request for want of its task index."""
        connector = {
            "name": "none",
            "description": "never called",
            "version": 1,
            "protocol": "http",
            "parameters": {},
            "credential": {"key": "none"},
            "actions": [
                {
                    "action_type": "predict",
                    "method": "POST",
                    "url": "http://127.0.0.1/none",
                    "headers": {},
                    "request_body": "{}",
                }
            ],
        }
        connector_id = self._node.call("POST", "_plugins/_ml/connectors/_create", connector)["connector_id"]
        model = {"name": "none", "function_name": "remote", "description": "never called", "connector_id": connector_id}
        self._node.call("POST", "_plugins/_ml/models/_register", model)
