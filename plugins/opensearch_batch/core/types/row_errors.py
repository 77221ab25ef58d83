"""Detects errors of AI services in output rows."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class RowErrors(msgspec.Struct, frozen=True):
    """Detects rows in which an AI service reports an error.

    Args:
        find: returns the error message of a row that has an error instead of a prediction, None for any other row.
        members: names of top-level members. An error row has at least one of these members, and its value is not an
            array of numbers. Rows without these members are not decoded.
    """

    find: Callable[[bytes], str | None]
    members: frozenset[str] = frozenset()


NO_ERRORS = RowErrors(lambda row: None)  # noqa: ARG005 - no row is an error
