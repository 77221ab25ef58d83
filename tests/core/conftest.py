"""The core's tests need an S3 server and no more, unless they ask for the whole stack."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from opensearch_batch.core.s3 import S3Objects
from tests.scripted import Scripted


@pytest.fixture(scope="session")
def s3_client() -> Iterator[Any]:
    """A boto3 client of an S3 server of these tests' own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
    )
    yield client
    client.close()
    server.stop()


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


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A server that answers what it is told."""
    server = Scripted()
    yield server
    server.close()
