"""Finds the fields that processors copy predictions to, from the options alone; they must be vector fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Members of output rows that hold predictions.
PREDICTION_MEMBERS = ("SageMakerOutput", "modelOutput")


def prediction_fields(processors: Iterable[tuple[str, Any]]) -> list[str]:
    """Return the fields that processors (name, options) copy predictions to."""
    fields = set[str]()
    for name, options in processors:
        if name in ("copy_values", "rename_keys"):
            for entry in options.entries or ():
                read = (entry.from_key or "").removeprefix("/").split("/")[0]
                if read in PREDICTION_MEMBERS or read in fields:
                    fields.add(entry.to_key.removeprefix("/"))
    return sorted(fields)
