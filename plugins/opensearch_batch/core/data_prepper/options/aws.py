"""AWS options. Requests are signed by an Airflow connection, or by the role that it assumes for an ``aws`` block.

Source: Data Prepper's AwsAuthenticationOptions of each plugin, and S3DlqWriterConfig (2.17).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import (
    AccountId,
    BucketName,
    CheckedOptions,
    Plugin,
    Rule,
    account_notes,
    account_rules,
    bucket_name,
)
from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.transform.events.date_pattern import check_date_placeholders

Region = Annotated[str, Meta(min_length=1, examples=["us-east-1"])]
RoleArn = Annotated[str, Meta(min_length=20, max_length=2048, examples=["arn:aws:iam::123456789012:role/pipeline"])]
ExternalId = Annotated[str, Meta(min_length=2, max_length=1224)]
NO_HEADERS = {
    "sts_header_overrides": "STS headers are not supported; use the trust policy of the role, or name an Airflow "
    "connection in extension.opensearch_batch.connections.aws"
}


class Aws(CheckedOptions, frozen=True, kw_only=True):
    """Region and role."""

    REFUSED: ClassVar[Mapping[str, str]] = NO_HEADERS

    region: Region | None = None
    sts_role_arn: RoleArn | None = None
    sts_external_id: ExternalId | None = None

    @property
    def account(self) -> str | None:
        """The account of the role."""
        parts = (self.sts_role_arn or "").split(":")
        return parts[4] or None if len(parts) > 4 else None  # noqa: PLR2004 - arn:partition:iam::account:role/name


class MlAws(Aws, frozen=True, kw_only=True):
    """AWS options of ml_inference."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "job_sts_role_arn": "it applies to built-in models; the connector of the model names the role of the job"
    }


class OpenSearchAws(Aws, frozen=True, kw_only=True):
    """AWS options of a cluster with signed requests."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "resource_name": "it applies to semantic_enrichment, which is not supported"
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        **NO_HEADERS,
        "serverless_options": "network policies are not changed; admit this network in the policy of the collection",
        "semantic_enrichment": "it creates the index through the AWS control plane; create the index "
        "beforehand, or with template_content",
    }

    region: Region = "us-east-1"
    serverless: bool = False


class S3Dlq(CheckedOptions, frozen=True, kw_only=True):
    """A dead letter queue in S3; `bucket` has no ``s3://``."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "force_path_style": "the Airflow connection configures the addressing style",
        "legacy_md5_checksum": "the Airflow connection configures checksums",
    }
    REFUSED: ClassVar[Mapping[str, str]] = NO_HEADERS

    bucket: BucketName
    key_path_prefix: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    region: Region | None = None
    sts_role_arn: RoleArn | None = None
    sts_external_id: ExternalId | None = None
    bucket_owner: AccountId | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "bucket", bucket_name(self.bucket))

    def rules(self) -> Iterator[Rule]:
        """Yield checks, each with the option it is about."""
        yield from account_rules(("bucket_owner",), self.bucket_owner)
        if self.key_path_prefix is not None:
            yield ("key_path_prefix",), lambda: check_date_placeholders(self.key_path_prefix or "")

    def notes(self) -> Iterator[tuple[Keys, str]]:
        """Yield a remark on a placeholder for the owner."""
        yield from account_notes(("bucket_owner",), self.bucket_owner)

    def inheriting(self, aws: Aws) -> S3Dlq:
        """Return a copy with region and role of an ``aws`` block where it has none."""
        return msgspec.structs.replace(
            self, region=self.region or aws.region, sts_role_arn=self.sts_role_arn or aws.sts_role_arn
        )


Dlq = Annotated[S3Dlq, Plugin("dlq", {"s3": S3Dlq})]
