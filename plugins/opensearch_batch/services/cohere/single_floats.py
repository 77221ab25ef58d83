"""Writes 32-bit numbers with the fewest digits that read back as the same 32 bits, not with all digits of 64 bits.

A vector is half as long in JSON, and the index stores exactly the numbers that the service computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

# Nine digits distinguish every 32-bit number from its neighbours. Rounding to six finds those that need fewer.
DIGITS = (9, 8, 7, 6)
# Here the power of ten that makes nine digits a whole number is exact in 64 bits.
LEAST, MOST = 1e-12, 1e6

Change = Callable[[Any], Any]


def shortest(numbers: Sequence[float]) -> list[float]:
    """Return the 64-bit numbers with the shortest texts that stand for the same 32-bit numbers."""
    import numpy as np

    given = np.array(numbers, dtype=np.float64)
    single, size = given.astype(np.float32), np.abs(given)
    usual = (size >= LEAST) & (size < MOST)
    magnitude = np.floor(np.log10(np.where(usual, size, 1.0)))
    found = given
    for digits in DIGITS:
        scale = 10.0 ** (digits - 1 - magnitude)
        # A whole number divided by an exact power of ten is the 64-bit number nearest to that decimal.
        rounded = np.rint(np.where(usual, given, 0.0) * scale) / scale
        found = np.where(usual & (rounded.astype(np.float32) == single), rounded, found)
    rare = np.isfinite(size) & (size != 0) & ~usual
    found[rare] = single[rare].astype(str).astype(np.float64)
    numbers_found: list[float] = found.tolist()
    return numbers_found


def change_of(schema: Any) -> Change | None:  # noqa: ANN401 - an Avro schema is a name, a list or an object
    """Return the function that shortens the 32-bit numbers in a value of this Avro schema, None if it has none.

    Types that are only named, and unions of several such types, are not changed: their numbers are long, and correct.
    """
    if isinstance(schema, list):
        return _of_union([change for each in schema if (change := change_of(each)) is not None])
    if not isinstance(schema, dict):
        return _one if schema == "float" else None
    kind = schema["type"]
    if kind == "array":
        return _of_array(schema["items"])
    if kind == "record":
        return _of_record({field["name"]: change_of(field["type"]) for field in schema["fields"]})
    return change_of(kind)


def _one(value: Any) -> Any:  # noqa: ANN401 - a union may hold something else
    return shortest([value])[0] if isinstance(value, float) else value


def _of_union(changes: list[Change]) -> Change | None:
    return changes[0] if len(changes) == 1 else None


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

    def change(value: Any) -> Any:  # noqa: ANN401 - a record, unless a union holds something else
        if not isinstance(value, dict):
            return value
        return value | {name: each(value[name]) for name, each in changes.items() if name in value}

    return change
