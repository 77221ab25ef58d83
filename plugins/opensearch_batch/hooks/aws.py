"""Clients of AWS services, from an Airflow connection of apache-airflow-providers-amazon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import mask_secret

from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.hooks.connections import AWS_CONN_ID, connection
from opensearch_batch.hooks.file_conn_ids import is_in_file

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from airflow.sdk import Connection
    from botocore.client import BaseClient


def object_storage(aws_conn_id: str = AWS_CONN_ID) -> S3Objects:
    """Return the object storage of an AWS connection; raise ConfigError if there is no such connection."""
    owners = connection(aws_conn_id, "aws").extra_dejson.get("bucket_owners") or {}
    client = aws_hook(aws_conn_id, "s3").get_conn()
    if any(owners.values()):
        _expect_owners(client, owners)
    return S3Objects(client)


def aws_client(name: str, aws_conn_id: str = AWS_CONN_ID, *, region: str = "") -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
    """Return a boto3 client, by default in the connection's region; raise ConfigError without such a connection."""
    connection(aws_conn_id, "aws")
    return aws_hook(aws_conn_id, name, region=region).get_conn()


def aws_credential(aws_conn_id: str = AWS_CONN_ID, *, role_arn: str | None = None) -> Mapping[str, str | None]:
    """Return the ``credential`` of an ML Commons connector.

    Amazon OpenSearch Service accepts a role. Open-source ML Commons requires keys, which come from the AWS connection.
    """
    if role_arn:
        return {"roleArn": role_arn}
    connection(aws_conn_id, "aws")
    credentials = aws_hook(aws_conn_id).get_credentials()
    # Airflow masks the secrets of a connection, but not the keys of an assumed role.
    for secret in (credentials.secret_key, credentials.token):
        if secret:
            mask_secret(secret)
    keys = {"access_key": credentials.access_key, "secret_key": credentials.secret_key}
    return keys | ({"session_token": credentials.token} if credentials.token else {})


def aws_hook(aws_conn_id: str, client_type: str = "sts", *, region: str = "") -> AwsBaseHook:
    """Return the Amazon provider's hook, extended to resolve connections that a Data Prepper file describes."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    class Hook(AwsBaseHook):
        @classmethod
        def get_connection(cls, conn_id: str) -> Connection:
            return connection(conn_id, "aws") if is_in_file(conn_id) else super().get_connection(conn_id)

    return Hook(aws_conn_id=aws_conn_id, client_type=client_type, region_name=region or None)


def _expect_owners(client: BaseClient, owners: dict[str, str | None]) -> None:
    """Set `ExpectedBucketOwner` in each request, so that S3 refuses a bucket that belongs to another account."""

    def add_owner(params: dict[str, Any], **_: object) -> None:
        if owner := owners.get(params.get("Bucket", "")):
            params.setdefault("ExpectedBucketOwner", owner)

    client.meta.events.register("provide-client-params.s3", add_owner)
