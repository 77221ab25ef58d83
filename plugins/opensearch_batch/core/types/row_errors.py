"""Recognizes errors of AI services in output rows."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class RowErrors(msgspec.Struct, frozen=True):
    """Finds an AI service's error in a row.

    Args:
        find: returns the service's reason when a row is an error in place of a prediction, None for any other row.
        members: top-level members. An error row has at least one of them, with a value that is not an array of
            numbers. Rows without them are not decoded.
    """

    find: Callable[[bytes], str | None]
    members: frozenset[str] = frozenset()


NO_ERRORS = RowErrors(lambda row: None)  # noqa: ARG005 - whatever the row
