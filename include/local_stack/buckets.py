"""Buckets of the local S3 server. Their objects can be read without a key, so links to them open in a browser."""

from __future__ import annotations

import json
from typing import Any

from botocore.client import BaseClient


def create_bucket(s3: BaseClient, name: str) -> None:
    """Create a bucket, if it is missing, whose objects every user of the loopback address may read."""
    client: Any = s3
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*"}
    client.create_bucket(Bucket=name)
    client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
