"""Refuses a store that ignores conditional writes: two runs would both win, and both pay."""

from __future__ import annotations

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.objects import Objects

OTHER_ETAG = "0" * 32
_PROVEN = b"This store implements If-None-Match and If-Match; opensearch-batch tested it with this object.\n"
REMEDY = (
    "so two runs could both submit, and pay for, the same job. Give a work_prefix on Amazon S3, or on another store "
    "that implements conditional writes; a newer version of yours may"
)


def require_conditional_writes(objects: Objects, uri: str) -> None:
    """Test once whether the store of a work prefix implements conditional writes; later calls only read the result.

    Args:
        objects: the store.
        uri: the object that records the result.

    Raises:
        ConfigError: the store ignores the conditions.
    """
    if objects.head(uri) is not None:
        return
    # If-Match first: a process that dies between the two tests leaves no object that says both were passed.
    if objects.replace(uri, _PROVEN, etag=OTHER_ETAG):
        _refuse(objects, uri, "If-Match")
    # Of two processes that test at once, one creates the object; for the other one, that is the test.
    if objects.create(uri, _PROVEN) and objects.create(uri, _PROVEN):
        _refuse(objects, uri, "If-None-Match")


def _refuse(objects: Objects, uri: str, header: str) -> None:
    objects.delete(uri)
    raise ConfigError(f"{uri}: the store ignores {header}, {REMEDY}")
