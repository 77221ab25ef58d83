"""Fixtures of all tests. What runs here is real: servers on loopback, started once per session on free ports."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from opensearch_batch.core.objects import S3Objects


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server of the tests' own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Any:
    """A boto3 client of that server."""
    return boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
    )


@pytest.fixture
def bucket(s3_client: Any) -> str:
    """A new empty bucket."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(s3_client: Any) -> S3Objects:
    """The object storage the stages see."""
    return S3Objects(s3_client)
