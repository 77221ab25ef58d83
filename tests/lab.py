"""A running stack, as the tests see it."""

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
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.s3 import S3Objects
from tests.waiting import WAIT_S

MODEL = "all-MiniLM-L6-v2"


class Lab:
    """A running stack, seen by the tests."""

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
        # Made when first asked for: not every stack has the AI services.
        self._clients: dict[str, Any] = {}
        self.objects = S3Objects(self.s3)

    def aws(self, name: str) -> Any:
        """A client of one of AWS's services; the AI services answer for all but S3."""
        if name not in self._clients:
            make: Any = self._session.client
            self._clients[name] = make(name, endpoint_url=self.stack.addresses.ai_services)
        return self._clients[name]

    def aws_at_s3(self, name: str) -> Any:
        """A client of one of AWS's services that the S3 server answers for."""
        make: Any = self._session.client
        return make(name, endpoint_url=self.stack.addresses.s3)

    def sagemaker_model(self, name: str) -> None:
        """Let SageMaker have a model of this name."""
        try:
            self.sagemaker.create_model(ModelName=name)
        except self.sagemaker.exceptions.ClientError as error:
            if "already exist" not in str(error):
                raise

    def new_bucket(self) -> str:
        """Make an empty bucket."""
        name = f"b-{uuid.uuid4().hex[:12]}"
        create_bucket(self.s3, name)
        return name

    def vector(self, text: str) -> tuple[float, ...]:
        """Return the model's vector of a text, as an index keeps it."""
        answer = self.http.post(
            f"{self.stack.addresses.ai_services}/v1/embeddings",
            json={"model": "any", "input": text},
            headers={"Authorization": f"Bearer {self.stack.credentials.secret_key}"},
            timeout=WAIT_S,
        )
        answer.raise_for_status()
        vector = answer.json()["data"][0]["embedding"]
        return struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector))

    def run(self, module: str, **environment: str) -> str:
        """Run one of the local stack's programs on this stack, to its good end; return what it says."""
        stack = {
            "LOCAL_STACK_HOME": str(self.stack.home),
            "OPENSEARCH_VERSION": self.version,
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'plugins'}",
        }
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", f"include.local_stack.{module}"],
            cwd=REPOSITORY,
            env={**os.environ, **stack, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * WAIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        """Give the connections back."""
        self.http.close()
        self.s3.close()
        for client in self._clients.values():
            client.close()

    @property
    def sagemaker(self) -> Any:
        """A client of SageMaker."""
        return self.aws("sagemaker")

    def node(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the OpenSearch node."""
        answer = self.http.request(method, f"{self.stack.addresses.opensearch}/{path}", json=body, timeout=WAIT_S)
        answer.raise_for_status()
        return answer.json()

    def documents(self, index: str) -> dict[str, Any]:
        """Return what a search of at most 1,000 documents finds, by id."""
        found = self.node("POST", f"{index}/_search", {"size": 1000})
        return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}

    def writes(self, index: str) -> int:
        """Count the index operations that an index ever executed."""
        return int(self.node("GET", f"{index}/_stats/indexing")["_all"]["primaries"]["indexing"]["index_total"])

    def cluster(self) -> Cluster:
        """The node as the stages see it."""
        return Cluster(OpenSearch(self.stack.addresses.opensearch, max_retries=0, timeout=WAIT_S), "lab")

    def jobs(self) -> int:
        """How many jobs SageMaker ever accepted."""
        answer = self.http.get(f"{self.stack.addresses.ai_services}/jobs/count", timeout=WAIT_S)
        return int(answer.json()["sagemaker"])

    def fault(self, **fault: Any) -> None:
        """Inject a fault, into SageMaker unless another service is named."""
        url = f"{self.stack.addresses.ai_services}/faults"
        self.http.post(url, json={"service": "sagemaker", **fault}, timeout=WAIT_S).raise_for_status()

    def end_delays(self) -> None:
        """Let the jobs that a fault delays go on now."""
        self.http.delete(f"{self.stack.addresses.ai_services}/delays", timeout=WAIT_S).raise_for_status()

    def no_faults(self) -> None:
        """Take back the faults that were not used up."""
        self.http.delete(f"{self.stack.addresses.ai_services}/faults", timeout=WAIT_S).raise_for_status()
