"""Rounds 32-bit floats, read as 64-bit ones, to the fewest decimal digits that parse to the same 32-bit float.

This halves the JSON of a vector, and the index stores exactly the numbers that the service computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

# Nine digits identify every 32-bit float. Fewer than six digits are not tried: rounding to six gives the same number.
DIGITS = (9, 8, 7, 6)
# For absolute values in this range, `scale` is at most 1e20, and a 64-bit float holds powers of ten up to 1e22 exactly.
RANGE_START, RANGE_END = 1e-12, 1e6

Shortener = Callable[[Any], Any]


def shortest_decimals(numbers: Sequence[float]) -> list[float]:
    """Return the 64-bit floats with the shortest decimal texts that parse to the same 32-bit floats."""
    import numpy as np

    doubles = np.array(numbers, dtype=np.float64)
    single, absolute = doubles.astype(np.float32), np.abs(doubles)
    in_range = (absolute >= RANGE_START) & (absolute < RANGE_END)
    magnitude = np.floor(np.log10(np.where(in_range, absolute, 1.0)))
    rounded = doubles
    for digits in DIGITS:
        scale = 10.0 ** (digits - 1 - magnitude)
        # An integer divided by an exact power of ten is the 64-bit float nearest to the rounded decimal number.
        decimal = np.rint(np.where(in_range, doubles, 0.0) * scale) / scale
        rounded = np.where(in_range & (decimal.astype(np.float32) == single), decimal, rounded)
    tiny_or_large = np.isfinite(absolute) & (absolute != 0) & ~in_range
    rounded[tiny_or_large] = single[tiny_or_large].astype(str).astype(np.float64)
    return list(rounded.tolist())


def shortener(schema: Any) -> Shortener | None:  # noqa: ANN401 - an Avro schema is a name, a list or an object
    """Return a function that shortens the 32-bit floats in values of an Avro schema; None if it has no 32-bit floats.

    References to named types, and unions in which more than one type contains 32-bit floats, are not supported: their
    numbers are not shortened.
    """
    if isinstance(schema, list):
        shorteners = [shorten for each in schema if (shorten := shortener(each)) is not None]
        return shorteners[0] if len(shorteners) == 1 else None
    if not isinstance(schema, dict):
        return _shorten_one if schema == "float" else None
    kind = schema["type"]
    if kind == "array":
        return _of_array(schema["items"])
    if kind == "record":
        return _of_record({field["name"]: shortener(field["type"]) for field in schema["fields"]})
    return shortener(kind)


def _shorten_one(value: Any) -> Any:  # noqa: ANN401 - a union may have another type
    return shortest_decimals([value])[0] if isinstance(value, float) else value


def _of_array(items: Any) -> Shortener | None:  # noqa: ANN401 - an Avro schema
    if items == "float":
        return lambda value: shortest_decimals(value) if isinstance(value, list) else value
    shorten = shortener(items)
    if shorten is None:
        return None
    return lambda value: [shorten(item) for item in value] if isinstance(value, list) else value


def _of_record(members: dict[str, Shortener | None]) -> Shortener | None:
    shorteners = {name: shorten for name, shorten in members.items() if shorten is not None}
    if not shorteners:
        return None

    def shorten(value: Any) -> Any:  # noqa: ANN401 - a record, unless a union has another type
        if not isinstance(value, dict):
            return value
        return value | {name: each(value[name]) for name, each in shorteners.items() if name in value}

    return shorten
