"""Finds the fields to which processors copy predictions. These fields must be vector fields of the index."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any


def prediction_fields(processors: Iterable[tuple[str, Any]], members: Container[str]) -> list[str]:
    """Return the fields to which processors copy the members of output rows that hold predictions."""
    fields = set[str]()
    for name, options in processors:
        if name in ("copy_values", "rename_keys"):
            for entry in options.entries or ():
                source = (entry.from_key or "").removeprefix("/").split("/")[0]
                if source in members or source in fields:
                    fields.add(entry.to_key.removeprefix("/"))
    return sorted(fields)
