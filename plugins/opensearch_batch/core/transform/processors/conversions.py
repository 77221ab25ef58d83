"""Type conversions of convert_type, with Java's rules for the strings that are numbers.

Source: Data Prepper's typeconverter package (2.17), and the parse methods of Java's number classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, InvalidOperation
from math import isfinite
from typing import Any, Literal

import msgspec

from opensearch_batch.core.transform.events.java_values import INT_BITS, LONG_BITS, LONG_MAX, LONG_MIN, text_of

Type = Literal["integer", "long", "double", "string", "boolean", "big_decimal"]
Convert = Callable[[Any], Any]
# Limits the memory that a big_decimal requires. No index accepts more digits.
MAX_DIGITS = 10_000
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def converter(wanted: Type, scale: int = 0) -> Convert:
    """Return a function that converts a value to a type; it raises ValueError if the conversion is not possible."""
    return (lambda value: _to_big_decimal(value, scale)) if wanted == "big_decimal" else _CONVERTERS[wanted]


def parse_integer(text: str, bits: int) -> int:
    """Parse a signed integer of at most `bits` bits; raise ValueError if the string is not such an integer."""
    if _WHOLE.fullmatch(text) is None or len(text) > bits or not _fits(number := int(text), bits):
        raise ValueError(f"{text[:40]!r} is not an integer of {bits} bits")
    return number


def parse_double(text: str) -> float:
    """Parse a finite double, also with spaces around it and a suffix f or d, as in Java; else raise ValueError."""
    trimmed = text.strip()
    number = trimmed[:-1] if trimmed[-1:] in ("f", "F", "d", "D") else trimmed
    if _DECIMAL.fullmatch(number) is None or not isfinite(value := float(number)):
        raise ValueError(f"{text[:40]!r} is not a number")
    return value


def _fits(number: int, bits: int) -> bool:
    return -(1 << (bits - 1)) <= number < 1 << (bits - 1)


def _to_integer(value: object) -> int:
    if isinstance(value, str):
        return parse_integer(value, INT_BITS)
    # As in Data Prepper, a double or an integer of more than 32 bits is an error, not truncated.
    if isinstance(value, int) and _fits(value, INT_BITS):
        return int(value)
    raise _unsupported(value, "integer")


def _to_long(value: object) -> int:
    if isinstance(value, str):
        return parse_integer(value, LONG_BITS)
    if isinstance(value, float):
        return max(LONG_MIN, min(int(value), LONG_MAX))
    if isinstance(value, int) and _fits(value, LONG_BITS):
        return int(value)
    raise _unsupported(value, "long")


def _to_double(value: object) -> float:
    if isinstance(value, str):
        return parse_double(value)
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("the integer is beyond the range of a double") from None
    raise _unsupported(value, "double")


def _to_string(value: object) -> str:
    if isinstance(value, str | int | float):
        return text_of(value)
    raise _unsupported(value, "string")


def _to_boolean(value: object) -> bool:
    if isinstance(value, str):
        return value.lower() == "true"
    if isinstance(value, int | float):
        return value != 0
    raise _unsupported(value, "boolean")


def _to_big_decimal(value: object, scale: int) -> msgspec.Raw:
    """Return a decimal number with `scale` fraction digits; a scale of 0 leaves the digits unchanged."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        number = Decimal(value)
    elif isinstance(value, float):
        number = Decimal(text_of(value))
    elif isinstance(value, int) and _fits(value, LONG_BITS):
        number = Decimal(int(value))
    else:
        raise _unsupported(value, "big_decimal")
    if scale != 0:
        try:
            number = number.quantize(Decimal(1).scaleb(-scale), context=Context(prec=MAX_DIGITS))
        except InvalidOperation:
            raise ValueError(f"a scale of {scale} needs more than {MAX_DIGITS} digits") from None
    return msgspec.Raw(str(number).encode())


def _unsupported(value: object, wanted: str) -> ValueError:
    return ValueError(f"a value of type {type(value).__name__} cannot be converted to {wanted}")


_CONVERTERS: Mapping[Type, Convert] = {
    "integer": _to_integer,
    "long": _to_long,
    "double": _to_double,
    "string": _to_string,
    "boolean": _to_boolean,
}
