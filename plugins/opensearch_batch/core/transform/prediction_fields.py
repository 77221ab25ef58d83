"""Where predictions go is read off the processors, before any row exists: those fields have to be vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Where the AI services' answers stand in their rows: what is copied from there is a prediction.
PREDICTION_MEMBERS = ("SageMakerOutput", "modelOutput")


def prediction_fields(processors: Iterable[tuple[str, Any]]) -> list[str]:
    """Return the members that processors, by name and options, copy predictions to, as far as their options say it."""
    fields = set[str]()
    for name, options in processors:
        if name in ("copy_values", "rename_keys"):
            for entry in options.entries or ():
                read = (entry.from_key or "").removeprefix("/").split("/")[0]
                if read in PREDICTION_MEMBERS or read in fields:
                    fields.add(entry.to_key.removeprefix("/"))
    return sorted(fields)
