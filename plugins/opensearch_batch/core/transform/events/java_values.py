"""Arithmetic, comparison and string conversion as in the JVM: 32-bit integers overflow, and fractions have 32 bits.

There are four number types: Integer (32 bits), Long (64 bits), Float (32 bits; all fractions in events and in
expressions) and Double (64 bits; the quotient of two integers). Source: OperatorConfiguration and
LiteralTypeConversionsConfiguration of Data Prepper (2.17).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from ctypes import c_float
from decimal import Decimal
from typing import Any

# A number, string or set. Operations depend on its Java type, which mypy cannot express.
Operand = Any
INT_BITS, LONG_BITS = 32, 64
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
# Java prints fractions in this range without an exponent.
_PLAIN_FROM, _PLAIN_TO = 1e-3, 1e7
_FLOAT_DIGITS = range(6, 10)
_CONSTANTS = {None: "null", True: "true", False: "false"}
_NONE, _INTEGER, _LONG, _FLOAT, _DOUBLE = range(5)


class EvaluationError(Exception):
    """An expression has no value for an event. A condition without a value is false."""


class Long(int):
    """A Java Long with a value that fits an Integer. The type of any other integer follows from its size."""

    __slots__ = ()


class Double(float):
    """A Java Double (64 bits). A plain Python float represents a Java Float (32 bits)."""

    __slots__ = ()


_KINDS: dict[type, int] = {Long: _LONG, float: _FLOAT, Double: _DOUBLE}


def to_float32(number: float) -> float:
    """Return a number rounded to a 32-bit float."""
    return c_float(number).value


def operand(value: object) -> object:
    """Convert a value of an event to an operand; raise EvaluationError for an integer of more than 64 bits."""
    if type(value) is float:
        return to_float32(value)
    if type(value) is int and not LONG_MIN <= value <= LONG_MAX:
        raise EvaluationError(f"{value} has more than 64 bits, which operators do not support")
    return value


def json_value(value: Operand) -> object:
    """Convert the result of an expression to a JSON value; a 32-bit float gets its shortest decimal form."""
    kind = type(value)
    if kind is float:
        return _shortest(value)
    if kind is Double:
        return float(value)
    if kind is Long:
        return int(value)
    return [json_value(member) for _, member in value] if kind is frozenset else value


def with_type(value: Operand) -> tuple[object, object]:
    """Return the type and the value, so that set members of different types differ even if their values are equal."""
    kind = _kind(value)
    return (kind or type(value), value)


def equal(left: Operand, right: Operand) -> bool:
    """Return whether two values are equal; values of different types are unequal, except numbers."""
    if left is None or right is None:
        return left is right
    kinds = _kind(left), _kind(right)
    if _NONE in kinds:
        return _same(left, right)
    if _FLOAT in kinds:
        return to_float32(left) == to_float32(right)
    if _DOUBLE in kinds:
        return float(left) == float(right)
    return bool(left == right)


def ordering(compare: Callable[[Operand, Operand], object], *, inclusive: bool) -> Callable[[Operand, Operand], bool]:
    """Return a comparison of two numbers; the comparison is false if an operand is not a number."""

    def ordered(left: Operand, right: Operand) -> bool:
        kinds = _kind(left), _kind(right)
        if _NONE in kinds:
            return False
        if _DOUBLE in kinds and not (kinds[0] == _FLOAT and inclusive):
            return bool(compare(float(left), float(right)))
        if _FLOAT in kinds:
            return bool(compare(to_float32(left), to_float32(right)))
        return bool(compare(left, right))

    return ordered


def arithmetic(operation: Callable[[Operand, Operand], Operand]) -> Callable[[Operand, Operand], Operand]:
    """Return an operation on two numbers; its result has the wider type of the two."""

    def calculate(left: Operand, right: Operand) -> Operand:
        kinds = _kinds(left, right)
        if _DOUBLE in kinds:
            return Double(operation(float(left), float(right)))
        if _FLOAT in kinds:
            return to_float32(operation(to_float32(left), to_float32(right)))
        return _wrapped(operation(int(left), int(right)), LONG_BITS if _LONG in kinds else INT_BITS)

    return calculate


_sum = arithmetic(operator.add)


def add(left: Operand, right: Operand) -> Operand:
    """Add two numbers, or concatenate two strings."""
    return left + right if type(left) is str and type(right) is str else _sum(left, right)


def divide(left: Operand, right: Operand) -> Operand:
    """Divide two numbers; division by zero returns infinity, or NaN for 0 / 0."""
    kinds = _kinds(left, right)
    if _FLOAT in kinds and _DOUBLE not in kinds:
        return to_float32(_quotient(to_float32(left), to_float32(right)))
    return Double(_quotient(float(left), float(right)))


def remainder(left: Operand, right: Operand) -> Operand:
    """Return the remainder, with the sign of the dividend; raise EvaluationError for zero, or types besides Integer."""
    if _kinds(left, right) != (_INTEGER, _INTEGER) or right == 0:
        raise EvaluationError("% requires two 32-bit integers, the second not zero")
    return int(math.fmod(left, right))


def negate(value: Operand) -> Operand:
    """Negate a number; raise EvaluationError if the value is not a number, or is a Double."""
    kind = _kind(value)
    if kind in (_NONE, _DOUBLE):
        raise EvaluationError("- requires an integer or a 32-bit float")
    return -value if kind == _FLOAT else _wrapped(-value, INT_BITS if kind == _INTEGER else LONG_BITS)


def text_of(value: object) -> str:
    """Convert a value to a string, as Java's toString does."""
    if value is None or value is True or value is False:
        return _CONSTANTS[value]
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={text_of(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(text_of(element) for element in value) + "]"
    return str(value)


def _kind(value: Operand) -> int:
    kind = type(value)
    if kind is int:
        return _INTEGER if INT_MIN <= value <= INT_MAX else _LONG
    return _KINDS.get(kind, _NONE)


def _kinds(left: Operand, right: Operand) -> tuple[int, int]:
    kinds = _kind(left), _kind(right)
    if _NONE in kinds:
        raise EvaluationError("arithmetic requires numbers")
    return kinds


def _same(left: Operand, right: Operand) -> bool:
    """Compare values that are not both numbers; unlike Python, Java does not equate True, 1 and 1.0."""
    if type(left) is not type(right):
        return False
    if type(left) is list:
        return len(left) == len(right) and all(map(_same, left, right))
    if type(left) is dict:
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    return bool(left == right)


def _wrapped(number: int, bits: int) -> int:
    """Return an integer after overflow to 32 or 64 bits."""
    half = 1 << (bits - 1)
    inside = (number + half) % (2 * half) - half
    return Long(inside) if bits == LONG_BITS and INT_MIN <= inside <= INT_MAX else inside


def _quotient(left: float, right: float) -> float:
    if right:
        return left / right
    return math.nan if not left or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)


def _shortest(number: float) -> float:
    """Return the shortest decimal number that rounds to a 32-bit float.

    Hand-written, because numpy returns other numbers for some powers of two.
    """
    for digits in _FLOAT_DIGITS:
        short = float(f"{number:.{digits}g}")
        if to_float32(short) == number:
            return short
    return number


def _float_text(number: float) -> str:
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if not number or _PLAIN_FROM <= abs(number) < _PLAIN_TO:
        return repr(float(number))
    sign, digits, exponent = Decimal(repr(float(number))).as_tuple()
    written = "".join(map(str, digits))
    fraction = written[1:].rstrip("0") or "0"
    return f"{'-' * sign}{written[0]}.{fraction}E{int(exponent) + len(written) - 1}"
