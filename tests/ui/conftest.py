"""One api-server for all tests of the API, with a cluster and a store on loopback."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow_in_process import environ, prepared
from tests.core.aws import aws
from tests.scripted import Scripted
from tests.ui.api_server import Api, root_app
from tests.ui.ml_node import MLNode

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient


@pytest.fixture(scope="session")
def node() -> Iterator[MLNode]:
    """The cluster behind the connection `opensearch_default`."""
    server = MLNode()
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3_client() -> Iterator[Any]:
    """The store behind the connection `aws_default`."""
    with aws("s3") as client:
        client.create_bucket(Bucket="opensearch-batch")
        yield client


@pytest.fixture(scope="session")
def sagemaker() -> Iterator[Scripted]:
    """SageMaker, which has no job of any name."""
    server = Scripted()
    absent = {"__type": "ValidationException", "message": "Could not find requested job with name: any"}
    server.answer = lambda _: (400, absent)
    yield server
    server.close()


@pytest.fixture(scope="session")
def settings(node: MLNode, s3_client: Any, sagemaker: Scripted) -> dict[str, str]:
    """The environment of the api-server."""
    cluster = {"conn_type": "opensearch", "host": "127.0.0.1", "port": node.port, "extra": {"use_ssl": False}}
    services = {"s3": {"endpoint_url": s3_client.meta.endpoint_url}, "sagemaker": {"endpoint_url": sagemaker.url}}
    store = {"region_name": "us-east-1", "service_config": services, "role_arn": ""}
    keys = {"conn_type": "aws", "login": "tests", "password": "tests", "extra": store}
    openai = {"conn_type": "http", "host": "http://127.0.0.1:9/v1", "password": "of-the-platform"}
    connections = {"OPENSEARCH": cluster, "AWS": keys, "OPENAI": openai}
    stored = {f"AIRFLOW_CONN_{name}_DEFAULT": json.dumps(value) for name, value in connections.items()}
    return prepared() | stored


@pytest.fixture(scope="session")
def root(settings: dict[str, str]) -> FastAPI:
    """Airflow's app."""
    with environ(settings):
        return root_app()


@pytest.fixture(autouse=True)
def _environment(settings: dict[str, str]) -> Iterator[None]:
    with environ(settings):
        yield


@pytest.fixture
def client(root: FastAPI, node: MLNode) -> Iterator[TestClient]:
    """A client of the server; the lifespans of its apps run meanwhile."""
    from fastapi.testclient import TestClient

    node.reset()
    with TestClient(root, raise_server_exceptions=False) as running:
        yield running


@pytest.fixture
def sign_in(client: TestClient) -> Callable[[str | None], Api]:
    """Return the API as a user sees it."""
    return lambda user: Api(client, user)


@pytest.fixture
def api(client: TestClient) -> Api:
    """The API as an operator sees it."""
    return Api(client, "op")


@pytest.fixture
def bucket(s3_client: Any) -> str:
    """A new empty bucket."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name
