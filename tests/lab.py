"""A running stack, as the tests see it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import boto3
import requests
from opensearchpy import OpenSearch

from include.local_stack.stack import Stack
from opensearch_batch.core.cluster import Cluster
from opensearch_batch.core.s3 import S3Objects

TIMEOUT_S = 30


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
        self.objects = S3Objects(self.s3)

    def close(self) -> None:
        """Give the connections back."""
        self.http.close()
        self.s3.close()
        if "sagemaker" in self.__dict__:
            self.sagemaker.close()

    @cached_property
    def sagemaker(self) -> Any:
        """A client of SageMaker; not every stack has the AI services."""
        return self._session.client("sagemaker", endpoint_url=self.stack.addresses.ai_services)

    def node(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the OpenSearch node."""
        answer = self.http.request(method, f"{self.stack.addresses.opensearch}/{path}", json=body, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()

    def cluster(self) -> Cluster:
        """The node as the stages see it."""
        return Cluster(OpenSearch(self.stack.addresses.opensearch, max_retries=0, timeout=TIMEOUT_S), "lab")

    def jobs(self) -> int:
        """How many jobs SageMaker ever accepted."""
        answer = self.http.get(f"{self.stack.addresses.ai_services}/jobs/count", timeout=TIMEOUT_S)
        return int(answer.json()["sagemaker"])

    def fault(self, **fault: Any) -> None:
        """Inject a fault into SageMaker."""
        url = f"{self.stack.addresses.ai_services}/faults"
        self.http.post(url, json={"service": "sagemaker", **fault}, timeout=TIMEOUT_S).raise_for_status()

    def no_faults(self) -> None:
        """Take back the faults that were not used up."""
        self.http.delete(f"{self.stack.addresses.ai_services}/faults", timeout=TIMEOUT_S).raise_for_status()
