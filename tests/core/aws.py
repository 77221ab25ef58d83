"""One service of AWS on loopback, for tests that need no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import boto3
from moto.server import ThreadedMotoServer


@contextmanager
def aws(service: Literal["s3", "cloudformation"]) -> Iterator[Any]:
    """Run a server of its own; give a boto3 client of it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        service,
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
    )
    try:
        yield client
    finally:
        client.close()
        server.stop()
