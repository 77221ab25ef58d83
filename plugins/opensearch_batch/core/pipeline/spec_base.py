"""Types of single values in a pipeline file, and the descriptions of keys."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from opensearch_batch.core.types.counts import PERCENT

JsonPath = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Percent = Annotated[str, Meta(pattern=PERCENT)]
S3_PREFIX = "^s3://[^/]"


def about(text: str, example: object = None) -> Meta:
    """Return the description of a key; error messages show `example` if the value of the key is invalid."""
    return Meta(description=text, examples=None if example is None else [example])
