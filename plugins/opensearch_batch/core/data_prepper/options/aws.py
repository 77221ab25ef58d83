"""AWS options. Credentials come from an Airflow connection, or from a role that the connection assumes.

Source: Data Prepper's AwsAuthenticationOptions of each plugin, and S3DlqWriterConfig (2.17).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import AccountId, BucketName, CheckedOptions, Plugin, bucket_name
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.data_prepper.options.expressions import DatedPrefix

Region = Annotated[str, Meta(min_length=1, examples=["us-east-1"])]
RoleArn = Annotated[str, Meta(min_length=20, max_length=2048, examples=["arn:aws:iam::123456789012:role/pipeline"])]
ExternalId = Annotated[str, Meta(min_length=2, max_length=1224)]
NO_HEADERS = {
    "sts_header_overrides": "STS headers are not supported; use the trust policy of the role, or name an Airflow "
    "connection in extension.opensearch_batch.connections.aws"
}


class Aws(Options, frozen=True, kw_only=True):
    """The region and the role of an ``aws`` block."""

    REFUSED: ClassVar[Mapping[str, str]] = NO_HEADERS

    region: Region | None = None
    sts_role_arn: RoleArn | None = None
    sts_external_id: ExternalId | None = None

    @property
    def account(self) -> str | None:
        """The account of the role, or None without a role."""
        parts = (self.sts_role_arn or "").split(":")
        return parts[4] or None if len(parts) > 4 else None  # noqa: PLR2004 - arn:partition:iam::account:role/name

    def connection_extra(self) -> dict[str, Any]:
        """Return the region and the role as the extra of an Airflow connection."""
        extra: dict[str, Any] = {"region_name": self.region} if self.region else {}
        if self.sts_role_arn:
            extra["role_arn"] = self.sts_role_arn
            if self.sts_external_id:
                extra["assume_role_kwargs"] = {"ExternalId": self.sts_external_id}
        return extra


class OwnedBuckets(CheckedOptions, frozen=True, kw_only=True):
    """Options for the accounts that must own the buckets. S3 rejects a request for a bucket of another account.

    Source: Data Prepper's BucketOwnerProvider (2.17).
    """

    disable_bucket_ownership_validation: bool = False
    bucket_owners: dict[str, AccountId] = msgspec.field(default_factory=dict)
    default_bucket_owner: AccountId | None = None
    aws: Annotated[Aws, Meta(examples=[{"region": "us-east-1"}])]

    def owner_of(self, bucket: str) -> str | None:
        """Return the account that must own a bucket, None if any account may."""
        if self.disable_bucket_ownership_validation:
            return None
        return self.bucket_owners.get(bucket) or self.default_bucket_owner or self.aws.account


class MlAws(Aws, frozen=True, kw_only=True):
    """AWS options of ml_inference."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "job_sts_role_arn": "the option applies only to built-in models; the connector of the model names the role"
    }


class OpenSearchAws(Aws, frozen=True, kw_only=True):
    """AWS options of a cluster that requires signed requests."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "resource_name": "the option applies only to semantic_enrichment, which is not supported"
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        **NO_HEADERS,
        "serverless_options": "network policies are not changed; allow this network in the policy of the collection",
        "semantic_enrichment": "indexes are not created through the AWS control plane; create the index "
        "beforehand, or with template_content",
    }

    region: Region = "us-east-1"
    serverless: bool = False


class S3Dlq(Aws, frozen=True, kw_only=True):
    """A dead letter queue in S3; `bucket` is stored without ``s3://``."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "force_path_style": "the Airflow connection configures the addressing style",
        "legacy_md5_checksum": "the Airflow connection configures checksums",
    }

    bucket: BucketName
    key_path_prefix: DatedPrefix | None = None
    bucket_owner: AccountId | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "bucket", bucket_name(self.bucket))

    def inheriting(self, aws: Aws) -> S3Dlq:
        """Return a copy with a missing region or role replaced from an ``aws`` block."""
        return msgspec.structs.replace(
            self, region=self.region or aws.region, sts_role_arn=self.sts_role_arn or aws.sts_role_arn
        )


Dlq = Annotated[S3Dlq, Plugin("dlq", {"s3": S3Dlq})]
