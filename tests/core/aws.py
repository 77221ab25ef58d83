"""One service of AWS on loopback, for tests that need no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import boto3

from include.local_stack.s3_server import s3_server


@contextmanager
def aws(service: Literal["s3", "cloudformation"]) -> Iterator[Any]:
    """Run a server of its own; give a boto3 client of it."""
    server = s3_server()
    answering = threading.Thread(target=server.serve_forever, daemon=True)
    answering.start()
    client = boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{server.port}",
        region_name="us-east-1",
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
    )
    try:
        yield client
    finally:
        client.close()
        server.shutdown()
        answering.join()
