"""The core's tests need an S3 server and no more, unless they ask for the whole stack."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from opensearch_batch.core.storage.s3 import S3Objects
from tests.core.aws import aws
from tests.scripted import Scripted


@pytest.fixture(scope="session")
def s3_client() -> Iterator[Any]:
    """A boto3 client of an S3 server of these tests' own."""
    with aws("s3") as client:
        yield client


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
