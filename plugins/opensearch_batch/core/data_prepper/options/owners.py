"""A bucket that somebody else took over is neither read nor written: S3 is told who must own it.

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
    """Options that say who owns a bucket."""

    @property
    def bucket_owners(self) -> dict[str, str]:
        """Accounts by bucket."""

    @property
    def default_bucket_owner(self) -> str | None:
        """The account of the other buckets."""

    @property
    def aws(self) -> Aws:
        """The role, whose account it is otherwise."""


class OwnedBuckets(CheckedOptions, frozen=True, kw_only=True):
    """Who owns the buckets that are read."""

    disable_bucket_ownership_validation: bool = False
    bucket_owners: dict[str, AccountId] = msgspec.field(default_factory=dict)
    default_bucket_owner: AccountId | None = None
    aws: Annotated[Aws, Meta(examples=[{"region": "us-east-1"}])]

    def owner_of(self, bucket: str) -> str | None:
        """Return the account that must own a bucket, None for anybody."""
        return None if self.disable_bucket_ownership_validation else owner_of(self, bucket)

    def rules(self) -> Iterator[Rule]:
        """Yield what is checked, and the option it is about."""
        yield from owner_rules(self)

    def notes(self) -> Iterator[tuple[Keys, str]]:
        """Yield which owners are yet to be written."""
        yield from owner_notes(self)


def owner_of(options: Owned, bucket: str) -> str | None:
    """Return the account that must own a bucket, None where nobody is said to."""
    return options.bucket_owners.get(bucket) or options.default_bucket_owner or options.aws.account


def owner_rules(options: Owned) -> Iterator[Rule]:
    """Yield what is checked of accounts."""
    for keys, account in _accounts(options):
        yield from account_rules(keys, account)


def owner_notes(options: Owned) -> Iterator[tuple[Keys, str]]:
    """Yield which accounts are yet to be written."""
    for keys, account in _accounts(options):
        yield from account_notes(keys, account)


def _accounts(options: Owned) -> Iterator[tuple[Keys, str | None]]:
    yield ("default_bucket_owner",), options.default_bucket_owner
    for bucket, account in options.bucket_owners.items():
        yield ("bucket_owners", bucket), account
