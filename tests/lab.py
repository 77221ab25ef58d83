"""Clients and helpers for tests that run against the local stack."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import uuid
from typing import Any

import boto3
import requests
from opensearchpy import OpenSearch

from include.local_stack.buckets import create_bucket
from include.local_stack.settings import REPOSITORY
from include.local_stack.stack import Stack
from opensearch_batch.core.opensearch.client import Address, opensearch_client
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.s3 import S3Objects
from tests.waiting import WAIT_S

MODEL = "all-MiniLM-L6-v2"


class Lab:
    """A running local stack with clients for its servers."""

    def __init__(self, stack: Stack, version: str) -> None:
        self.stack = stack
        self.version = version
        self.http = requests.Session()
        self.http.trust_env = False
        self._session = boto3.Session(
            aws_access_key_id=stack.credentials.access_key,
            aws_secret_access_key=stack.credentials.secret_key,
            region_name="us-east-1",
        )
        self.s3: Any = self._session.client("s3", endpoint_url=stack.addresses.s3)
        # Created on first use, because not every stack has the AI services.
        self._clients: dict[str, Any] = {}
        self.objects = S3Objects(self.s3)

    def aws(self, name: str) -> Any:
        """Return a boto3 client for an AWS service other than S3; the local AI services implement it."""
        if name not in self._clients:
            make: Any = self._session.client
            self._clients[name] = make(name, endpoint_url=self.stack.addresses.ai_services)
        return self._clients[name]

    def aws_at_s3(self, name: str) -> Any:
        """Return a boto3 client for an AWS service that the local S3 server implements."""
        make: Any = self._session.client
        return make(name, endpoint_url=self.stack.addresses.s3)

    def sagemaker_model(self, name: str) -> None:
        """Create a SageMaker model of this name, unless it exists."""
        try:
            self.sagemaker.create_model(ModelName=name)
        except self.sagemaker.exceptions.ClientError as error:
            if "already exist" not in str(error):
                raise

    def new_bucket(self) -> str:
        """Create an empty bucket; return its name."""
        name = f"b-{uuid.uuid4().hex[:12]}"
        create_bucket(self.s3, name)
        return name

    def vector(self, text: str) -> tuple[float, ...]:
        """Return the model's vector of a text with the 32-bit floats that an index stores."""
        return self.vectors([text])[0]

    def vectors(self, texts: list[str]) -> list[tuple[float, ...]]:
        """Return the model's vectors of texts with the 32-bit floats that an index stores."""
        response = self.http.post(
            f"{self.stack.addresses.ai_services}/v1/embeddings",
            json={"model": "any", "input": texts},
            headers={"Authorization": f"Bearer {self.stack.credentials.secret_key}"},
            timeout=WAIT_S,
        )
        response.raise_for_status()
        vectors = [each["embedding"] for each in response.json()["data"]]
        return [struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector)) for vector in vectors]

    def run(self, module: str, **environment: str) -> str:
        """Run a program of the local stack on this stack; return its output. The program must succeed."""
        stack = {
            "LOCAL_STACK_HOME": str(self.stack.home),
            "OPENSEARCH_VERSION": self.version,
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'plugins'}",
        }
        completed = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", f"include.local_stack.{module}"],
            cwd=REPOSITORY,
            env={**os.environ, **stack, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * WAIT_S,
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout

    def close(self) -> None:
        """Close the clients."""
        self.http.close()
        self.s3.close()
        for client in self._clients.values():
            client.close()

    @property
    def sagemaker(self) -> Any:
        """A boto3 client for SageMaker."""
        return self.aws("sagemaker")

    def node(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to the OpenSearch node; return the decoded response."""
        response = self.http.request(method, f"{self.stack.addresses.opensearch}/{path}", json=body, timeout=WAIT_S)
        response.raise_for_status()
        return response.json()

    def documents(self, index: str) -> dict[str, Any]:
        """Return up to 1,000 documents of an index by id."""
        response = self.node("POST", f"{index}/_search", {"size": 1000})
        return {hit["_id"]: hit["_source"] for hit in response["hits"]["hits"]}

    def writes(self, index: str) -> int:
        """Return the number of index operations that an index has executed."""
        return int(self.node("GET", f"{index}/_stats/indexing")["_all"]["primaries"]["indexing"]["index_total"])

    def cluster(self) -> Cluster:
        """Return the node, or all of several, as the `Cluster` that the stages use."""
        if nodes := self.stack.addresses.opensearch_nodes:
            return Cluster(opensearch_client(Address(",".join(url.removeprefix("http://") for url in nodes))), "lab")
        return Cluster(OpenSearch(self.stack.addresses.opensearch, max_retries=0, timeout=WAIT_S), "lab")

    def jobs(self) -> int:
        """Return the number of jobs that SageMaker has accepted."""
        response = self.http.get(f"{self.stack.addresses.ai_services}/jobs/count", timeout=WAIT_S)
        return int(response.json()["sagemaker"])

    def texts(self) -> int:
        """Return the number of texts that SageMaker's jobs have computed."""
        response = self.http.get(f"{self.stack.addresses.ai_services}/texts/count", timeout=WAIT_S)
        return int(response.json()["sagemaker"])

    def fault(self, **fault: Any) -> None:
        """Add a fault to SageMaker, or to the service that is named."""
        url = f"{self.stack.addresses.ai_services}/faults"
        self.http.post(url, json={"service": "sagemaker", **fault}, timeout=WAIT_S).raise_for_status()

    def end_delays(self) -> None:
        """Start the jobs that a fault delays."""
        self.http.delete(f"{self.stack.addresses.ai_services}/delays", timeout=WAIT_S).raise_for_status()

    def no_faults(self) -> None:
        """Remove the faults that have not occurred yet."""
        self.http.delete(f"{self.stack.addresses.ai_services}/faults", timeout=WAIT_S).raise_for_status()
