"""Prepares what the services of docker-compose.yaml need before the first run: `python -m include.compose.prepare`.

The password of Airflow's user, the node's user `worker` with its role, the buckets with the sample data, and the model
at the stand-in of SageMaker. A second start changes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import requests
from botocore.exceptions import ClientError

from include.local_stack.airflow import ADMIN
from include.local_stack.demo import DOCUMENTS, MODEL, SAMPLE, WORK
from include.local_stack.opensearch_security import ADMIN as NODE_ADMIN
from include.local_stack.opensearch_security import worker_account
from include.local_stack.state import Credentials, write_private

TIMEOUT_S = 60


def main() -> None:
    """Prepare all of it."""
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__)
    for name in ("s3", "node", "ai-services"):
        parser.add_argument(f"--{name}", required=True, help="URL")
    parser.add_argument("--authority", required=True, help="certificate that the node's is signed with")
    parser.add_argument("--passwords", type=Path, required=True, help="file of Airflow's simple auth manager")
    options = parser.parse_args()
    keys = Credentials(
        access_key=os.environ["LOCAL_S3_ACCESS_KEY"],
        secret_key=os.environ["LOCAL_S3_SECRET_KEY"],
        opensearch_admin_password=os.environ["LOCAL_OPENSEARCH_ADMIN_PASSWORD"],
        opensearch_worker_password=os.environ["LOCAL_OPENSEARCH_WORKER_PASSWORD"],
    )
    write_private(options.passwords, json.dumps({ADMIN: os.environ["LOCAL_AIRFLOW_PASSWORD"]}).encode())
    make: Any = boto3.Session(
        aws_access_key_id=keys.access_key, aws_secret_access_key=keys.secret_key, region_name="us-east-1"
    ).client
    s3, sagemaker = make("s3", endpoint_url=options.s3), make("sagemaker", endpoint_url=options.ai_services)
    for bucket in (DOCUMENTS, WORK):
        _unless_present(s3.create_bucket, Bucket=bucket)
    s3.upload_file(str(SAMPLE), DOCUMENTS, f"passages/{SAMPLE.name}")
    _provide_worker(options.node, options.authority, keys)
    _unless_present(sagemaker.create_model, ModelName=MODEL)


def _provide_worker(node: str, authority: str, keys: Credentials) -> None:
    with requests.Session() as session:
        # A CA bundle in the environment would replace the authority.
        session.trust_env = False
        session.auth, session.verify = (NODE_ADMIN, keys.opensearch_admin_password), authority
        for path, body in worker_account(keys):
            session.put(f"{node}{path}", json=body, timeout=TIMEOUT_S).raise_for_status()


def _unless_present(create: Callable[..., object], **arguments: str) -> None:
    try:
        create(**arguments)
    except ClientError as error:
        if "already" not in str(error).lower():
            raise


if __name__ == "__main__":
    main()
