"""The services' own limits that a test may want otherwise; a job keeps those it was accepted under."""

from typing import Annotated

import msgspec


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits in force."""

    bedrock_min_records: Annotated[int, msgspec.Meta(ge=1)] = 100
