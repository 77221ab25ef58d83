"""Operators of the expression language. For unsupported types, comparisons are false and arithmetic fails.

Source: OperatorConfiguration and the Operator classes of data-prepper-expression (2.17).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events import java_values as java
from opensearch_batch.core.transform.events.event import MISSING, Event, Key
from opensearch_batch.core.transform.events.java_pattern import compile_java_pattern
from opensearch_batch.core.transform.events.java_values import EvaluationError

Evaluate = Callable[[Event], object]
Binary = Callable[[object, object], object]
_TYPES_BY_FIRST_BYTE = {
    ord("["): "array",
    ord("{"): "map",
    ord('"'): "string",
    ord("t"): "boolean",
    ord("f"): "boolean",
}
_TYPES = {list: "array", dict: "map", str: "string", bool: "boolean"}


def reader(key: Key) -> Evaluate:
    """Return a function that reads the value at a key, or None if it is missing."""

    def read(event: Event) -> object:
        try:
            return java.operand(event.value(key))
        except msgspec.DecodeError as error:
            raise EvaluationError(f"/{'/'.join(key)} cannot be read: {error}") from None

    return read


def type_at(event: Event, key: Key) -> str | None:
    """Return the type of the value at a key, or None for null, without decoding strings, arrays and objects."""
    node = event.find(key)
    if type(node) is msgspec.Raw:
        name = _TYPES_BY_FIRST_BYTE.get(memoryview(node)[0])
        if name is not None:
            return name
    value = None if node is MISSING else reader(key)(event)
    if value is None or type(value) in _TYPES:
        return None if value is None else _TYPES[type(value)]
    if type(value) is float:
        # The value is a 32-bit float, which is neither a "double" nor a "big_decimal".
        return "float"
    return "integer" if type(value) is int and java.INT_MIN <= value <= java.INT_MAX else "long"


def _both(left: object, right: object) -> bool:
    return left is True and right is True


def _either(left: object, right: object) -> bool:
    return type(left) is bool and type(right) is bool and (left or right)


def _matches(left: object, right: object) -> bool | None:
    """Return whether a pattern matches a whole string, or None if a type is wrong or the pattern is invalid."""
    if type(left) is not str or type(right) is not str:
        return None
    try:
        return compile_java_pattern(right).fullmatch(left) is not None
    except ConfigError:
        return None


def _is_in(left: object, right: object) -> bool:
    return isinstance(right, frozenset) and type(left) not in (list, dict) and java.with_type(left) in right


OPERATORS: Mapping[str, Binary] = {
    "and": _both,
    "or": _either,
    "==": java.equal,
    "!=": lambda left, right: not java.equal(left, right),
    "=~": lambda left, right: _matches(left, right) is True,
    "!~": lambda left, right: _matches(left, right) is False,
    "<": java.ordering(operator.lt, inclusive=False),
    "<=": java.ordering(operator.le, inclusive=True),
    ">": java.ordering(operator.gt, inclusive=False),
    ">=": java.ordering(operator.ge, inclusive=True),
    "in": _is_in,
    "not in": lambda left, right: not _is_in(left, right),
    "+": java.add,
    "-": java.arithmetic(operator.sub),
    "*": java.arithmetic(operator.mul),
    "/": java.divide,
    "%": java.remainder,
}
