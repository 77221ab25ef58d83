"""Refuses JSONPaths that jsonpath-ng evaluates in a time or memory that does not follow the size of a row."""

from __future__ import annotations

from opensearch_batch.core.errors import ConfigError

MAX_DESCENTS = 2


def refuse_unbounded(name: str, path: str, compiled: object) -> None:
    """Raise ConfigError for a path whose time or memory does not follow the size of a row.

    Python's regular expressions go back exponentially often for some texts, arithmetic multiplies strings, and each
    ``..`` multiplies the matches by the depth of the row.
    """
    from jsonpath_ng import Descendants
    from jsonpath_ng.ext.arithmetic import Operation
    from jsonpath_ng.ext.string import Sub

    parts, descents = [compiled], 0
    while parts:
        part = parts.pop()
        if isinstance(part, Operation | Sub) or getattr(part, "op", None) == "=~":
            raise ConfigError(f"{name}: {path!r}: regular expressions and arithmetic are not supported in a path")
        descents += isinstance(part, Descendants)
        if descents > MAX_DESCENTS:
            raise ConfigError(f"{name}: {path!r} has more than {MAX_DESCENTS} '..'; name the members between them")
        parts += part if isinstance(part, list | tuple) else vars(part).values() if hasattr(part, "__dict__") else ()
