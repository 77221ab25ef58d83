"""Refuses a store that ignores conditional writes: there, two runs could submit and pay for the same job."""

from __future__ import annotations

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.objects import Objects

# No object has this ETag, so a write with ``If-Match`` must fail.
UNUSED_ETAG = "0" * 32
_PROOF = b"This store implements If-None-Match and If-Match; opensearch-batch tested it with this object.\n"
REMEDY = (
    "so two runs could submit, and pay for, the same job. Set work_prefix to a location on Amazon S3, or on another "
    "store that implements conditional writes; a newer version of this store may implement them"
)


def require_conditional_writes(objects: Objects, uri: str) -> None:
    """Raise ConfigError if the store ignores conditions of writes; tested once, the object `uri` is the proof."""
    if objects.head(uri) is not None:
        return
    # If-Match first: if the process dies between the two tests, no object claims that the store passed both.
    if objects.replace(uri, _PROOF, etag=UNUSED_ETAG):
        _refuse(objects, uri, "If-Match")
    # If two processes test at the same time, only one creates the object, which also proves If-None-Match.
    if objects.create(uri, _PROOF) and objects.create(uri, _PROOF):
        _refuse(objects, uri, "If-None-Match")


def _refuse(objects: Objects, uri: str, header: str) -> None:
    objects.delete(uri)
    raise ConfigError(f"{uri}: the store ignores {header}, {REMEDY}")
