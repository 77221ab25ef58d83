"""Evaluates JSONPaths with wildcards, slices, filters, ``..`` or functions, with jsonpath-ng.

Paths whose time or memory is not bounded by the size of a row are refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.formats.json_text import encode_number_text, number_text_decoder

MAX_DESCENTS = 2
_FUNCTION = re.compile(r"\.(length|size|min|max|sum|avg)\(\)$")
_FUNCTIONS: Mapping[str, Callable[[list[Any]], int | float]] = {
    "length": len,
    "size": len,
    # As in ML Commons, these functions return doubles.
    "min": lambda values: float(min(values)),
    "max": lambda values: float(max(values)),
    "sum": lambda values: float(sum(values)),
    "avg": lambda values: float(sum(values)) / len(values),
}


def jsonpath_reader(name: str, path: str) -> Callable[[object, bytes], bytes | None]:
    """Return a function that evaluates a path with jsonpath-ng; raise ConfigError if it is not a JSONPath.

    The function returns the JSON text of a list of matches, or of one value if the path can match only one value.
    """
    from jsonpath_ng.exceptions import JSONPathError
    from jsonpath_ng.ext.parser import parse

    function = _FUNCTION.search(path)
    try:
        with warnings.catch_warnings():
            # jsonpath-ng is going to remove the operators `|` and `&`, which the JSONPaths of ML Commons do not have.
            warnings.simplefilter("error", DeprecationWarning)
            compiled = parse(path[: function.start()] if function else path)
    except (JSONPathError, ValueError, TypeError, AttributeError, LookupError, RecursionError, Warning) as error:
        # For some strings, the parser raises errors of other types than JSONPathError.
        raise ConfigError(f"{name}: {path!r} is not a JSONPath ({error}); write it like $.content[0]") from error
    _refuse_unbounded(name, path, compiled)
    decode, matches_one = number_text_decoder().decode, _matches_one(compiled)

    def evaluate(row: bytes) -> bytes | None:
        matches = [match.value for match in compiled.find(decode(row))]
        if function:
            return _apply(function[1], matches)
        if not matches_one:
            return encode_number_text(matches)
        return encode_number_text(matches[0]) if matches else None

    def read(decoded: object, row: bytes) -> bytes | None:  # noqa: ARG001 - one signature
        try:
            return evaluate(row)
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001 - jsonpath-ng does not wrap errors of comparisons and functions
            raise RecordRejected(f"{name}: {path} cannot be evaluated on this row: {error}") from None

    return read


def _apply(function: str, matches: list[Any]) -> bytes | None:
    """Return the result of a function on the matches of a path, or None if the function does not support them."""
    if not matches:
        return None
    values = matches[0] if len(matches) == 1 and isinstance(matches[0], list) else matches
    try:
        return msgspec.json.encode(_FUNCTIONS[function](values))
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _matches_one(path: object) -> bool:
    """Return whether a compiled path consists only of names and single indexes, and so matches at most one value."""
    from jsonpath_ng import Child, Fields, Index, Root

    if isinstance(path, Child):
        return _matches_one(path.left) and _matches_one(path.right)
    if isinstance(path, Fields):
        return len(path.fields) == 1 and path.fields[0] != "*"
    if isinstance(path, Index):
        return len(path.indices) == 1
    return isinstance(path, Root)


def _refuse_unbounded(name: str, path: str, compiled: object) -> None:
    """Raise ConfigError for a path whose time or memory is not bounded by the size of a row.

    Python's regular expressions backtrack exponentially for some strings, arithmetic can multiply strings, and each
    ``..`` multiplies the number of matches by the depth of the row.
    """
    from jsonpath_ng import Descendants
    from jsonpath_ng.ext.arithmetic import Operation
    from jsonpath_ng.ext.string import Sub

    parts, descents = [compiled], 0
    while parts:
        part = parts.pop()
        if isinstance(part, Operation | Sub) or getattr(part, "op", None) == "=~":
            raise ConfigError(f"{name}: {path!r}: regular expressions and arithmetic are not supported in a path")
        descents += isinstance(part, Descendants)
        if descents > MAX_DESCENTS:
            raise ConfigError(f"{name}: {path!r} has more than {MAX_DESCENTS} '..'; name the members between them")
        parts += part if isinstance(part, list | tuple) else vars(part).values() if hasattr(part, "__dict__") else ()
