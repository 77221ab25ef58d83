"""Combines the routes of a sink into one condition that holds for exactly the same rows, or raises an error.

If a route's condition raises an error, the route does not match; a combined condition would fail as a whole. So only
conditions that are true or false for every row are combined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Key, key_of
from opensearch_batch.core.transform.expressions import grammar
from opensearch_batch.core.transform.flow import DEFAULT_ROUTE

_FORMAT = re.compile(r"\$\{([^}]+)\}")
_NAME = re.compile(r"[A-Za-z0-9_~/-]+")
_ARITHMETIC = frozenset("+-*/%")


def combined_condition(routes: Sequence[tuple[str, str]], sink_routes: Sequence[str]) -> str | None:
    """Return the condition for the rows of a sink, or None if it receives all rows; `routes` are (name, condition).

    Raises:
        ConfigError: the routes cannot be combined.
    """
    if not sink_routes or (DEFAULT_ROUTE in sink_routes and not routes):
        return None
    conditions = [text for name, text in routes if name in sink_routes]
    if DEFAULT_ROUTE not in sink_routes and len(conditions) == 1:
        return conditions[0]
    for name, text in routes:
        if not never_fails(grammar.parse(text)):
            raise ConfigError(
                f"the condition of {name} can fail for a row, so it cannot be combined with others; give the sink one "
                "route"
            )
    if DEFAULT_ROUTE in sink_routes:
        conditions.append(f"not ({_any_of([text for _, text in routes])})")
    return _any_of(conditions)


def _any_of(conditions: Sequence[str]) -> str:
    return conditions[0] if len(conditions) == 1 else " or ".join(f"({text})" for text in conditions)


def never_fails(node: grammar.Node) -> bool:
    """Return whether a condition is true or false, and not an error, for every row."""
    if isinstance(node, (grammar.Parenthesized, grammar.Inverted)):
        return never_fails(node.operand)
    if isinstance(node, grammar.Chain):
        operands = [node.first, *(operand for _, operand in node.operations)]
        if any(sign in ("and", "or") for sign, _ in node.operations):
            return all(never_fails(operand) for operand in operands)
        return all(sign not in _ARITHMETIC and _has_value(operand) for sign, operand in node.operations) and _has_value(
            node.first
        )
    return isinstance(node, grammar.TypeOf) or (isinstance(node, grammar.Literal) and isinstance(node.value, bool))


def _has_value(node: grammar.Node) -> bool:
    if isinstance(node, (grammar.Pointer, grammar.LiteralSet)):
        return True
    return never_fails(node) or (isinstance(node, grammar.Literal) and not node.too_large)


def path_of(text: str | None) -> str | None:
    """Return the JSONPath of a format like ``${/id}``, None for None; raise ConfigError if it is not a single key."""
    if text is None:
        return None
    placeholder = _FORMAT.fullmatch(text)
    key = _key(placeholder[1]) if placeholder else None
    if not key:
        raise ConfigError(
            f"{text!r} is not a single key; id and routing of a pipeline file are paths, so use one key, like ${{/id}}"
        )
    return "$" + "".join(_step(name) for name in key)


def _key(text: str) -> Key | None:
    """Return the key if an expression is a single key, else None."""
    try:
        key = key_of(text)
    except ConfigError:
        return None
    try:
        tree = grammar.parse(text)
    except ConfigError:
        return key
    return key if isinstance(tree, grammar.Pointer) else None


def _step(name: str) -> str:
    if name.isdecimal():
        return f"[{name}]"
    return f".{name}" if _NAME.fullmatch(name) else f"['{name}']"
