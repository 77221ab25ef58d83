"""Compiles expressions to nested functions, which return the same values as Data Prepper.

As in Data Prepper, all operands are evaluated: ``true or /s + 1`` has no value if ``/s`` is a string. An expression
reads only its own keys from an event.
Source: ParseTreeEvaluatorListener and OperatorConfiguration of data-prepper-expression (2.17).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.transform.events import java_values as java
from opensearch_batch.core.transform.events.date_pattern import compile_date_pattern
from opensearch_batch.core.transform.events.event import Event, Key, key_of
from opensearch_batch.core.transform.events.java_pattern import compile_java_pattern
from opensearch_batch.core.transform.events.java_values import EvaluationError
from opensearch_batch.core.transform.expressions import grammar
from opensearch_batch.core.transform.expressions.functions import FUNCTIONS, KeyArgument
from opensearch_batch.core.transform.expressions.operators import OPERATORS, Binary, Evaluate, reader, type_at

__all__ = ["EvaluationError", "Expression", "compile_condition", "compile_expression"]

Condition = Callable[[Event], bool]
_WithOperands = grammar.Pointer | grammar.TypeOf | grammar.Chain | grammar.Negative | grammar.Inverted


class Expression(msgspec.Struct, frozen=True):
    """A compiled expression: its `text`, the `keys` that it reads, and `evaluate`, which returns Java numbers."""

    text: str
    keys: frozenset[Key]
    evaluate: Evaluate

    def __call__(self, event: Event) -> object:
        """Return the value for an event, as a JSON value; raise EvaluationError if the expression has none."""
        return java.json_value(self.evaluate(event))


def compile_expression(text: str) -> Expression:
    """Compile an expression; raise ConfigError if the string is not a valid expression."""
    tree = grammar.parse(text)
    compiler = _Compiler(text)
    try:
        evaluate = compiler.compile(tree)
    except RecursionError:
        raise ConfigError(f"the expression {text[:40]!r}... is nested too deeply; use fewer parentheses") from None
    return Expression(text, frozenset(compiler.keys), evaluate)


def expression_or_none(text: str) -> Expression | None:
    """Compile an expression; return None if it is invalid."""
    try:
        return compile_expression(text)
    except ConfigError:
        return None


def compile_condition(text: str | None) -> Condition:
    """Compile the condition of an option such as ``add_when``; raise ConfigError if it is not a valid expression.

    The condition is true for every event if there is none, and false if the value of the expression is not a boolean.
    """
    if text is None:
        return lambda event: True  # noqa: ARG005 - one signature
    evaluate = compile_expression(text).evaluate

    def condition(event: Event) -> bool:
        try:
            return evaluate(event) is True
        except EvaluationError:
            return False

    return condition


class _Compiler:
    """Compiles a syntax tree and collects its keys; `in_call` is true for the argument of a function."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.keys: set[Key] = set()

    def compile(self, node: grammar.Node, *, in_call: bool = False) -> Evaluate:
        if isinstance(node, grammar.Parenthesized):
            return self.compile(node.operand, in_call=in_call)
        if isinstance(node, grammar.Literal):
            return _fails(f"{node.value} has more than 64 bits") if node.too_large else _constant(node.value)
        if isinstance(node, grammar.LiteralSet):
            return _literal_set(node)
        return self._call(node) if isinstance(node, grammar.Call) else self._compile_operands(node, in_call=in_call)

    def _compile_operands(self, node: _WithOperands, *, in_call: bool) -> Evaluate:
        if isinstance(node, grammar.Pointer):
            return self._pointer(node, in_call=in_call)
        if isinstance(node, grammar.TypeOf):
            return self._type_of(node, in_call=in_call)
        if isinstance(node, grammar.Chain):
            return self._chain(node, in_call=in_call)
        operand = self.compile(node.operand, in_call=in_call)
        if isinstance(node, grammar.Negative):
            return lambda event: java.negate(operand(event))
        # As in Data Prepper, `not` returns false for a value that is not a boolean.
        return lambda event: operand(event) is False

    def _with_key(self, pointer: grammar.Pointer, function_of: Callable[[Key], Evaluate]) -> Evaluate:
        """Return `function_of(key)`, or a function that raises EvaluationError if the key is invalid."""
        try:
            key = key_of(pointer.text)
        except ConfigError as error:
            return _fails(str(error))
        self.keys.add(key)
        return function_of(key)

    def _pointer(self, pointer: grammar.Pointer, *, in_call: bool) -> Evaluate:
        if in_call and pointer.quoted:
            return _constant(pointer.text)
        return self._with_key(pointer, (lambda key: _constant(KeyArgument(key))) if in_call else reader)

    def _call(self, called: grammar.Call) -> Evaluate:
        function = FUNCTIONS.get(called.name)
        if function is None:
            raise ConfigError(
                f"{self.text!r} is not an expression: there is no function {called.name!r}.{_hint(called.name)}"
            )
        self._check_pattern(called)
        arguments = [self.compile(argument, in_call=True) for argument in called.arguments]

        def call(event: Event) -> object:
            try:
                return function(event, [argument(event) for argument in arguments])
            except msgspec.DecodeError as error:
                raise EvaluationError(f"{called.name}() cannot read its argument: {error}") from None

        return call

    def _check_pattern(self, call: grammar.Call) -> None:
        """Raise ConfigError for a constant date pattern that is unsupported: it would fail for every event."""
        if call.name == "formatDateTime" and len(call.arguments) > 1:
            pattern = call.arguments[1]
            if isinstance(pattern, grammar.Literal) and isinstance(pattern.value, str):
                compile_date_pattern(pattern.value.strip())

    def _type_of(self, node: grammar.TypeOf, *, in_call: bool) -> Evaluate:
        if in_call:
            # In a function argument the operand is the key instead of its value, so the test is always false.
            return _constant(value=False)
        return self._with_key(node.pointer, partial(_type_test, wanted=node.type))

    def _chain(self, chain: grammar.Chain, *, in_call: bool) -> Evaluate:
        if len(chain.operations) == 1 and not in_call:
            null_test = self._null_test(chain)
            if null_test is not None:
                return null_test
        first = self.compile(chain.first, in_call=in_call)
        steps = [self._step(sign, operand, in_call=in_call) for sign, operand in chain.operations]
        if len(steps) == 1:
            binary, second = steps[0]
            return lambda event: binary(first(event), second(event))

        def folded(event: Event) -> object:
            value = first(event)
            for step, following in steps:
                value = step(value, following(event))
            return value

        return folded

    def _step(self, sign: str, operand: grammar.Node, *, in_call: bool) -> tuple[Binary, Evaluate]:
        if isinstance(operand, grammar.Literal) and sign in ("=~", "!~"):
            # Reports an invalid pattern when the expression is compiled, and caches the compiled pattern.
            compile_java_pattern(operand.value)
        return OPERATORS[sign], self.compile(operand, in_call=in_call)

    def _null_test(self, chain: grammar.Chain) -> Evaluate | None:
        """Compile a comparison of a key with null, without decoding the value; return None for any other chain."""
        sign, second = chain.operations[0]
        pointer, other = (chain.first, second) if isinstance(chain.first, grammar.Pointer) else (second, chain.first)
        if not isinstance(pointer, grammar.Pointer) or other != grammar.Literal(None) or sign not in ("==", "!="):
            return None
        if sign == "==":
            return self._with_key(pointer, lambda key: lambda event: event.is_null(key))
        return self._with_key(pointer, lambda key: lambda event: not event.is_null(key))


def _hint(name: str) -> str:
    if name == "not":
        return " Write a space after not"
    return did_you_mean(name, FUNCTIONS) or f" Use one of {', '.join(FUNCTIONS)}"


def _constant(value: object) -> Evaluate:
    return lambda event: value  # noqa: ARG005 - one signature


def _fails(reason: str) -> Evaluate:
    """Return a function that raises EvaluationError for every event."""

    def fail(event: Event) -> object:  # noqa: ARG001 - one signature
        raise EvaluationError(reason)

    return fail


def _type_test(key: Key, wanted: str) -> Evaluate:
    def is_of_type(event: Event) -> bool:
        actual = type_at(event, key)
        if actual is None and wanted == "array":
            raise EvaluationError("typeof array is not defined for null")
        return actual == wanted

    return is_of_type


def _literal_set(node: grammar.LiteralSet) -> Evaluate:
    values = [literal.value for literal in node.literals]
    if any(literal.too_large for literal in node.literals):
        return _fails("a member of the set has more than 64 bits")
    kinds = {int if type(value) is float else type(value) for value in values}
    if len(kinds) > 1 or type(None) in kinds:
        return _fails("the members of a set must be all strings, all numbers or all booleans")
    return _constant(frozenset(map(java.with_type, values)))
