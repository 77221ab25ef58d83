"""Rounds 32-bit floats, read as 64-bit ones, to the fewest decimal digits that parse to the same 32-bit float.

This halves the JSON of a vector, and the index stores exactly the numbers that the service computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

# Nine digits identify every 32-bit float. Six digits cover the numbers that need fewer.
DIGITS = (9, 8, 7, 6)
# In this range, the power of ten that scales nine digits to an integer is exact in 64 bits.
LEAST, MOST = 1e-12, 1e6

Change = Callable[[Any], Any]


def shortest(numbers: Sequence[float]) -> list[float]:
    """Return the 64-bit floats with the shortest decimal texts that parse to the same 32-bit floats."""
    import numpy as np

    given = np.array(numbers, dtype=np.float64)
    single, size = given.astype(np.float32), np.abs(given)
    usual = (size >= LEAST) & (size < MOST)
    magnitude = np.floor(np.log10(np.where(usual, size, 1.0)))
    rounded = given
    for digits in DIGITS:
        scale = 10.0 ** (digits - 1 - magnitude)
        # An integer divided by an exact power of ten is the 64-bit float nearest to that decimal.
        decimal = np.rint(np.where(usual, given, 0.0) * scale) / scale
        rounded = np.where(usual & (decimal.astype(np.float32) == single), decimal, rounded)
    rare = np.isfinite(size) & (size != 0) & ~usual
    rounded[rare] = single[rare].astype(str).astype(np.float64)
    return list(rounded.tolist())


def change_of(schema: Any) -> Change | None:  # noqa: ANN401 - an Avro schema is a name, a list or an object
    """Return the function that shortens the 32-bit floats in a value of this Avro schema, None if it has none.

    References to named types, and unions with several changed types, are not supported: their numbers stay long.
    """
    if isinstance(schema, list):
        changes = [change for each in schema if (change := change_of(each)) is not None]
        return changes[0] if len(changes) == 1 else None
    if not isinstance(schema, dict):
        return _one if schema == "float" else None
    kind = schema["type"]
    if kind == "array":
        return _of_array(schema["items"])
    if kind == "record":
        return _of_record({field["name"]: change_of(field["type"]) for field in schema["fields"]})
    return change_of(kind)


def _one(value: Any) -> Any:  # noqa: ANN401 - a union may have another type
    return shortest([value])[0] if isinstance(value, float) else value


def _of_array(items: Any) -> Change | None:  # noqa: ANN401 - an Avro schema
    if items == "float":
        return lambda value: shortest(value) if isinstance(value, list) else value
    change = change_of(items)
    if change is None:
        return None
    return lambda value: [change(item) for item in value] if isinstance(value, list) else value


def _of_record(members: dict[str, Change | None]) -> Change | None:
    changes = {name: change for name, change in members.items() if change is not None}
    if not changes:
        return None

    def change(value: Any) -> Any:  # noqa: ANN401 - a record, unless a union has another type
        if not isinstance(value, dict):
            return value
        return value | {name: each(value[name]) for name, each in changes.items() if name in value}

    return change
