"""Creates boto3 S3 clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opensearch_batch.core.errors import ConfigError

if TYPE_CHECKING:
    from botocore.client import BaseClient


def s3_client(
    *,
    endpoint: str | None = None,
    region: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    session_token: str | None = None,
) -> BaseClient:
    """Return a boto3 S3 client, by default with boto3's configuration.

    Raise ConfigError, without quoting the values, if half of a key pair is missing, or region or endpoint are invalid.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    if bool(access_key) != bool(secret_key):
        missing = "secret_key" if access_key else "access_key"
        raise ConfigError(f"credential: access_key and secret_key are both needed; {missing} is missing")
    try:
        session = boto3.Session(
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=session_token,
            region_name=region,
        )
        client: BaseClient = session.client("s3", endpoint_url=endpoint)
    except (BotoCoreError, ValueError) as error:
        # botocore's message would show a secret that was passed as the region by mistake.
        raise ConfigError(
            f"cannot create an S3 client ({type(error).__name__}); correct the region, the endpoint or AWS_PROFILE"
        ) from None
    return client
