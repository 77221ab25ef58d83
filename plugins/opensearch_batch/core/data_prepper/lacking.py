"""Which keys decide that a condition cannot hold: a row without them matches no route, however it looks otherwise.

A condition is gone through with what a row lacks as null, as Data Prepper's expressions take it (2.17), and with any
value for the rest; so nothing is said of a condition that may hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from opensearch_batch.core.data_prepper import expression_grammar as grammar
from opensearch_batch.core.data_prepper.event import Key
from opensearch_batch.core.data_prepper.expression_operators import OPERATORS
from opensearch_batch.core.data_prepper.processors.base import key_or_none

# What a condition may come to; None is neither true nor false.
Outcomes = set[bool | None]
_ANY: Outcomes = {True, False}
_JOINS = ("and", "or")


def lacking_keys(text: str, has: Callable[[Key], bool]) -> list[Key]:
    """Return the keys without which a condition never holds, of those that rows are not known to have.

    Args:
        text: the condition, which was compiled before.
        has: says of a key whether rows are known to have it.
    """
    tree = grammar.parse(text)
    absent = {key for key in _keys(tree) if not has(key)}
    if True in _outcomes(tree, absent):
        return []
    alone = [key for key in sorted(absent) if True not in _outcomes(tree, {key})]
    return alone or sorted(absent)


def _outcomes(node: grammar.Node, absent: set[Key]) -> Outcomes:
    if isinstance(node, grammar.Parenthesized):
        return _outcomes(node.of, absent)
    if isinstance(node, grammar.Inverted):
        return {each is False for each in _outcomes(node.of, absent)}
    if isinstance(node, grammar.Chain) and node.rest[0][0] in _JOINS:
        found = _outcomes(node.first, absent)
        for sign, operand in node.rest:
            others = _outcomes(operand, absent)
            found = {OPERATORS[sign](left, right) for left in found for right in others}
        return found
    keys = set(_keys(node))
    return _of_nothing(node) if keys and keys <= absent else _ANY


def _of_nothing(node: grammar.Node) -> Outcomes:
    """Return what a test of keys comes to when nothing stands at any of them."""
    if isinstance(node, grammar.Pointer):
        return {None}
    if isinstance(node, grammar.TypeOf):
        return {False}
    if not isinstance(node, grammar.Chain) or len(node.rest) > 1:
        # A function, perhaps one that fails.
        return {False, None} if isinstance(node, grammar.Call) else _ANY
    sign, second = node.rest[0]
    if sign in ("==", "!="):
        same = all(isinstance(each, grammar.Pointer) or each == grammar.Literal(None) for each in (node.first, second))
        return {same == (sign == "==")}
    return {sign == "not in"}


def _keys(part: object) -> Iterator[Key]:
    """Yield the keys that a part of a condition reads; a quoted one in a call is a text."""
    if isinstance(part, grammar.Pointer):
        key = key_or_none(part.text)
        if key is not None:
            yield key
    elif isinstance(part, grammar.Call):
        yield from _keys(tuple(each for each in part.arguments if not getattr(each, "quoted", False)))
    elif isinstance(part, tuple):
        for each in part:
            yield from _keys(each)
    elif isinstance(part, msgspec.Struct):
        yield from _keys(msgspec.structs.astuple(part))
