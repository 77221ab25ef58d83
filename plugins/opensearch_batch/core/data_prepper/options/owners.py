"""Bucket owners. S3 rejects a request for a bucket of another account, so no foreign bucket is read or written.

Source: Data Prepper's BucketOwnerProvider of the s3 source, sink and s3_enrich (2.17).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import AccountId, CheckedOptions, Rule, account_notes, account_rules
from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.data_prepper.options.aws import Aws


class Owned(Protocol):
    """Options with bucket owners."""

    @property
    def bucket_owners(self) -> dict[str, str]:
        """Account ids by bucket."""

    @property
    def default_bucket_owner(self) -> str | None:
        """The account id of all other buckets."""

    @property
    def aws(self) -> Aws:
        """The role; its account is the default."""


class OwnedBuckets(CheckedOptions, frozen=True, kw_only=True):
    """Options with the owners of the buckets that are read."""

    disable_bucket_ownership_validation: bool = False
    bucket_owners: dict[str, AccountId] = msgspec.field(default_factory=dict)
    default_bucket_owner: AccountId | None = None
    aws: Annotated[Aws, Meta(examples=[{"region": "us-east-1"}])]

    def owner_of(self, bucket: str) -> str | None:
        """Return the account that must own a bucket, None if any may."""
        return None if self.disable_bucket_ownership_validation else owner_of(self, bucket)

    def rules(self) -> Iterator[Rule]:
        """Yield checks, each with the option it is about."""
        yield from owner_rules(self)

    def notes(self) -> Iterator[tuple[Keys, str]]:
        """Yield remarks on placeholders for owners."""
        yield from owner_notes(self)


def owner_of(options: Owned, bucket: str) -> str | None:
    """Return the account that must own a bucket, None if any may."""
    return options.bucket_owners.get(bucket) or options.default_bucket_owner or options.aws.account


def owner_rules(options: Owned) -> Iterator[Rule]:
    """Yield the rules for account ids."""
    for keys, account in _accounts(options):
        yield from account_rules(keys, account)


def owner_notes(options: Owned) -> Iterator[tuple[Keys, str]]:
    """Yield remarks on placeholders for account ids."""
    for keys, account in _accounts(options):
        yield from account_notes(keys, account)


def _accounts(options: Owned) -> Iterator[tuple[Keys, str | None]]:
    yield ("default_bucket_owner",), options.default_bucket_owner
    for bucket, account in options.bucket_owners.items():
        yield ("bucket_owners", bucket), account
