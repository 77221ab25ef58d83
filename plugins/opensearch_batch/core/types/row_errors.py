"""Detects errors of AI services in output rows."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class RowErrors(msgspec.Struct, frozen=True):
    """Detects rows in which an AI service reports an error.

    `find` returns the error message of such a row. It has at least one of these top-level `members`, whose value is not
    an array of numbers; rows without these members are not decoded.
    """

    find: Callable[[bytes], str | None]
    members: frozenset[str] = frozenset()


NO_ERRORS = RowErrors(lambda row: None)  # noqa: ARG005 - no row is an error
