"""Converts YAML nodes to strings as written in the file, or to JSON values.

Scalars are resolved as in Data Prepper: hexadecimal, octal and binary integers, digits with underscores, and exponents
without a decimal point are numbers; sexagesimals and dates are strings; `yes` is true. A value of a string option keeps
its leading zeros, as in an account id.
Source: the Resolver of SnakeYAML (2.5) and the YAMLParser of Jackson (2.21).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from operator import attrgetter
from typing import TypeAlias

from opensearch_batch.core.config.yaml_file import NULL, Node

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
_STR = "tag:yaml.org,2002:str"
_BOOL = "tag:yaml.org,2002:bool"
_MAX_DIGITS = 300
_INTS = (
    (2, re.compile(r"([-+]?)0b([01_]*[01][01_]*)", re.ASCII)),
    (16, re.compile(r"([-+]?)0x([0-9a-fA-F_]*[0-9a-fA-F][0-9a-fA-F_]*)", re.ASCII)),
    (8, re.compile(r"([-+]?)0([0-7_]*[0-7][0-7_]*)", re.ASCII)),
    (10, re.compile(r"([-+]?)(0|[1-9][0-9_]*)", re.ASCII)),
)
_EXPONENT = r"[eE][-+]?[0-9]+"
_FLOAT = re.compile(
    rf"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*(?:{_EXPONENT})?|{_EXPONENT})|\.[0-9_]*[0-9][0-9_]*(?:{_EXPONENT})?)", re.ASCII
)


def is_null(node: Node) -> bool:
    """Return whether a node is absent or null."""
    return node is None or (node.id == "scalar" and node.tag == NULL)


def is_bool(node: Node) -> bool:
    """Return whether a node is a boolean, like an unquoted `yes` or `off`."""
    return bool(node.id == "scalar" and node.tag == _BOOL)


def strings_of(node: Node) -> Json:
    """Return the value of a node; its scalars are strings, exactly as in the file."""
    return _value(node, attrgetter("value"))


def json_of(node: Node) -> Json:
    """Return the value of a node; its scalars are resolved to booleans, numbers and strings."""
    return _value(node, _scalar)


def _value(node: Node, scalar: Callable[[Node], Json]) -> Json:
    if is_null(node):
        return None
    if node.id == "mapping":
        return {name.value: _value(value, scalar) for name, value in node.value}
    if node.id == "sequence":
        return [_value(each, scalar) for each in node.value]
    return scalar(node)


def _scalar(node: Node) -> Json:
    text: str = node.value
    tag = node.tag.rpartition(":")[2]
    if tag == "bool":
        return text.lower() in ("true", "yes", "on")
    if tag in ("int", "float") or _is_plain(node):
        number = _number(text)
        return text if number is None else number
    return text


def _is_plain(node: Node) -> bool:
    """Return whether a scalar has no quotes and no tag. The text of a tagged node is longer than its value."""
    length = node.end_mark.index - node.start_mark.index
    return bool(node.tag == _STR and not node.style and length == len(node.value))


def _number(text: str) -> int | float | None:
    """Parse a number; return None if the string is not a number that JSON can represent."""
    if len(text) > _MAX_DIGITS:
        return None
    for base, pattern in _INTS:
        if match := pattern.fullmatch(text):
            return int(match[1] + match[2].replace("_", ""), base)
    if _FLOAT.fullmatch(text) is None:
        return None
    number = float(text.replace("_", ""))
    return number if math.isfinite(number) else None
