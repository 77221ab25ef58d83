"""How errors of AI services are found in rows."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class RowErrors(msgspec.Struct, frozen=True):
    """Finds an AI service's error in a row.

    Args:
        find: returns the service's reason when a row is an error in place of a prediction, None for any other row.
        members: names at the top of a row. A row that is an error has one of them, with something else than an array of
            numbers; so rows without need not be decoded to know that they are none.
    """

    find: Callable[[bytes], str | None]
    members: frozenset[str] = frozenset()


NO_ERRORS = RowErrors(lambda row: None)  # noqa: ARG005 - whatever the row
