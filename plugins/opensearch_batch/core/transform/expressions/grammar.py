"""Parses expressions with exactly the grammar of Data Prepper (DataPrepperExpression.g4, 2.17).

Peculiarities of this grammar: ``and`` and ``or`` have equal precedence and require a single space on each side; a
quoted string that starts with ``/`` is a key; a division requires a space after ``/``; ``+`` concatenates strings only
in an expression without other operators.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.java_values import LONG_MAX, to_float32

if TYPE_CHECKING:
    from pyparsing import ParserElement, ParseResults

MAX_LONG_DIGITS = 19
_QUOTED_CHARS = 40
_NAME = "[A-Za-z0-9_.@]"
_END = f"(?!{_NAME})"
_WHOLE = "(?:0|[1-9][0-9]*)"
_QUOTED_KEY = r'"/(?:[^"\\]|\\[btnfr"' + r"'\\/])*" + '"'
_CHARS = r'(?:[^"\\$]|\\[btnfr"' + r"'\\$])*"
_FLOAT = rf"{_WHOLE}\.0*{_WHOLE}(?:[eE]-?{_WHOLE})?{_END}"
_TYPES = "integer|boolean|big_decimal|long|map|array|double|string"
_HINTS = {
    "'": "write strings in double quotes",
    "=": "use == for equality",
    "&": "write and, with a single space on each side",
    "|": "write or, with a single space on each side",
    "!": "write not, followed by a space",
    "$": "write keys without ${}, like /status",
    "/": "a division requires a space after /",
    "[": "write an array element like /list/0",
}
_MISPLACED_STRING = 'a string that starts with / is a key; for a string, as in a set, write """ around it'
# Patterns for hints: the valid start of a string, and a key with special characters but without quotes.
_VALID_STRING = re.compile(rf'"(?:"")?{_CHARS}')
_WORD = re.compile(r"""/[^\s"'(){}\[\],;=<>!*%+&|$\\]+""")
_PLAIN_WORD = re.compile(rf"(?:{_NAME}|/)+")
_IN_CALL = re.compile(rf"{_NAME}\s*\([^()]*\Z")
_MATCHED = re.compile(r"[=!]~\s*\Z")
# Replacements for predefined classes, because the grammar rejects a backslash before these letters.
_CLASSES = {"d": "[0-9]", "D": "[^0-9]", "w": "[A-Za-z0-9_]", "W": "[^A-Za-z0-9_]", "s": r"[ \t]", "S": r"[^ \t]"}
_REMEDY = (
    "write it like /status == 200 and /name != null, with single spaces around and, or, in and typeof, "
    "and one space after not"
)


class Literal(msgspec.Struct, frozen=True):
    """A constant; `too_large` marks an integer of more than 64 bits, whose evaluation fails."""

    value: Any
    too_large: bool = False


class Pointer(msgspec.Struct, frozen=True):
    """A key, with or without quotes."""

    text: str
    quoted: bool = False


class LiteralSet(msgspec.Struct, frozen=True):
    """A set of constants."""

    literals: tuple[Literal, ...]


class Call(msgspec.Struct, frozen=True):
    """A function call with its arguments."""

    name: str
    arguments: tuple[Node, ...]


class Negative(msgspec.Struct, frozen=True):
    """An arithmetic negation."""

    operand: Node


class Inverted(msgspec.Struct, frozen=True):
    """A logical negation with ``not``."""

    operand: Node


class TypeOf(msgspec.Struct, frozen=True):
    """A type test of the value at a key."""

    pointer: Pointer
    type: str


class Chain(msgspec.Struct, frozen=True):
    """An operand, then operators of equal precedence with their right operands; `concatenates` is true for strings."""

    first: Node
    operations: tuple[tuple[str, Node], ...]
    concatenates: bool = False


class Parenthesized(msgspec.Struct, frozen=True):
    """An expression in parentheses."""

    operand: Node


Node = Literal | Pointer | LiteralSet | Call | Negative | Inverted | TypeOf | Chain | Parenthesized


def parse(text: str) -> Node:
    """Parse an expression to its syntax tree; raise ConfigError if the string is not a valid expression."""
    from pyparsing import ParseBaseException

    try:
        tree: Node = _grammar().parse_string(text, parse_all=True)[0]
    except ParseBaseException as error:
        raise _syntax_error(text, error.loc) from None
    except RecursionError:
        raise ConfigError(
            f"the expression {text[:_QUOTED_CHARS]!r}... is nested too deeply; use fewer parentheses"
        ) from None
    return tree


def _syntax_error(text: str, offset: int) -> ConfigError:
    offset += len(text[offset:]) - len(text[offset:].lstrip())
    got = repr(text[offset : offset + _QUOTED_CHARS]) if offset < len(text) else "end"
    return ConfigError(f"{text!r} is not an expression: unexpected {got} at column {offset + 1}; {_hint(text, offset)}")


def _hint(text: str, offset: int) -> str:
    """Return the remedy for unexpected characters at an offset."""
    if text[offset : offset + 1] == '"':
        return _string_hint(text, offset)
    for word in _WORD.finditer(text):
        if word.start() <= offset < word.end() and _PLAIN_WORD.fullmatch(word[0]) is None:
            if _IN_CALL.search(text, 0, word.start()):
                return f"a function does not accept a key like {word[0]}; rename it first, with rename_keys"
            return f'quote a key with characters other than letters, digits and _ . @: "{word[0]}"'
    return _HINTS.get(text[offset : offset + 1], _REMEDY)


def _string_hint(text: str, offset: int) -> str:
    valid = _VALID_STRING.match(text, offset)
    end = valid.end() if valid else offset + 1
    if text[end : end + 1] == "\\":
        sign = text[end + 1 : end + 2]
        instead = _CLASSES.get(sign) or (f"[{sign}]" if sign and not sign.isalnum() else "the characters themselves")
        return f"a backslash is not allowed before {sign or 'the end'}; in a pattern write {instead}"
    if text[end : end + 1] == "$":
        if _MATCHED.search(text, 0, offset):
            return "a pattern always matches the whole string; remove the $, or write \\$ for a dollar sign"
        return "write \\$ for a dollar sign in a string"
    if not text[end : end + 1]:
        return "the string has no closing quote"
    return _MISPLACED_STRING if text[offset + 1 : offset + 2] == "/" else _REMEDY


@functools.cache
def _grammar() -> ParserElement:
    """Build the grammar, from the highest precedence to the lowest.

    The parse actions check whether parentheses contain a number or a condition. Two alternatives in the grammar would
    double the parse time for each nested pair of parentheses.
    """
    import pyparsing as pp

    expression = pp.Forward()
    pointer = pp.Regex(f"/{_NAME}+(?:/{_NAME}+)*").add_parse_action(lambda tokens: Pointer(tokens[0]))
    key = pointer | pp.Regex(_QUOTED_KEY).add_parse_action(lambda tokens: Pointer(tokens[0][1:-1], quoted=True))
    literal = _literals()
    string = _strings()
    members = ("{" - literal + ("," - literal)[...] + "}").add_parse_action(_literal_set)
    argument = expression + ("," - expression)[...]
    name = pp.Regex(rf"{_NAME}+(?=[ \t\r\n]*\()")
    call = (name + "(" - pp.Opt(argument) + ")").add_parse_action(_call)
    parenthesized = ("(" - expression + ")").add_parse_action(_parenthesized)
    primary = key | call | members | parenthesized | literal
    term = pp.Forward()
    term <<= ("-" - term).add_parse_action(_negative) | primary
    product = _chain(term, pp.Regex(rf"[*%]|/(?!{_NAME})"), term).add_parse_action(_arithmetic)
    total = _chain(product, pp.one_of("+ -"), product).add_parse_action(_arithmetic)
    inverted = pp.Forward()
    negated = pp.Regex("not ").suppress() - (inverted | primary)
    inverted <<= negated.add_parse_action(lambda tokens: Inverted(tokens[0]))
    in_set = _chain(inverted | total, _spaced("not in|in"), members).add_parse_action(_condition)
    type_name = pp.Regex(f"(?:{_TYPES}){_END}")
    type_of = (pointer + _spaced("typeof").suppress() - type_name).add_parse_action(lambda tokens: TypeOf(*tokens))
    comparable = type_of | in_set
    ordered = _chain(comparable, pp.Regex("[<>]=?"), comparable).add_parse_action(_condition)
    pattern = key | string
    matched = (pattern + pp.Regex("[=!]~") - pattern).add_parse_action(_condition) | ordered
    equality = _chain(matched, pp.one_of("== !="), matched).add_parse_action(_condition)
    expression <<= _chain(equality, _spaced("and|or"), equality).add_parse_action(_condition)
    whole: ParserElement = pp.StringStart() + expression + pp.StringEnd()
    whole.parse_with_tabs()
    # pyparsing streamlines a grammar in the first parse, which is not safe if two threads parse concurrently.
    whole.streamline()
    return whole


def _chain(first: ParserElement, operators: ParserElement, other: ParserElement) -> ParserElement:
    # The repetition must not skip whitespace, because a space may belong to an operator.
    chain: ParserElement = first + (operators - other)[...].leave_whitespace(recursive=False)
    return chain


def _spaced(words: str) -> ParserElement:
    """Return a token that consists of an operator word and a required space on each side."""
    import pyparsing as pp

    token = pp.Regex(rf"[ \t\r\n]* ({words}) ").leave_whitespace()
    return token.add_parse_action(lambda tokens: tokens[0].strip())


def _strings() -> ParserElement:
    import pyparsing as pp

    # As in Data Prepper, a string in the form of a quoted key is a key, and backslashes are not removed.
    text = pp.Regex(f'(?!{_QUOTED_KEY})(?:"""{_CHARS}"""|"{_CHARS}")')
    return text.add_parse_action(lambda tokens: Literal(_unquoted(tokens[0])))


def _literals() -> ParserElement:
    import pyparsing as pp

    constants = {"true": Literal(value=True), "false": Literal(value=False), "null": Literal(None)}
    return (
        pp.Regex(_FLOAT).add_parse_action(lambda tokens: Literal(to_float32(float(tokens[0]))))
        | pp.Regex(_WHOLE + _END).add_parse_action(lambda tokens: _whole(tokens[0]))
        | pp.Regex(f"(?:true|false|null){_END}").add_parse_action(lambda tokens: constants[tokens[0]])
        | _strings()
    )


def _unquoted(text: str) -> str:
    """Remove up to three quotes, even escaped ones, from each end, as Data Prepper does."""
    return re.sub(r'^"{1,3}|"{1,3}\Z', "", text)


def _whole(text: str) -> Literal:
    fits = len(text) <= MAX_LONG_DIGITS and int(text) <= LONG_MAX
    return Literal(int(text)) if fits else Literal(text, too_large=True)


def _literal_set(tokens: ParseResults) -> LiteralSet:
    return LiteralSet(tuple(literal for literal in tokens if isinstance(literal, Literal)))


def _call(tokens: ParseResults) -> Call:
    return Call(tokens[0], tuple(part for part in tokens[1:] if not isinstance(part, str)))


def _parenthesized(source: str, offset: int, tokens: ParseResults) -> Parenthesized:
    _reject_concatenation(source, offset, tokens[1:2])
    return Parenthesized(tokens[1])


def _negative(source: str, offset: int, tokens: ParseResults) -> Negative:
    if not _is_arithmetic(tokens[1]):
        raise _unexpected(source, offset)
    return Negative(tokens[1])


def _condition(source: str, offset: int, tokens: ParseResults) -> Node:
    if len(tokens) > 1:
        _reject_concatenation(source, offset, tokens[::2])
    return _chained(tokens, concatenates=False)


def _arithmetic(source: str, offset: int, tokens: ParseResults) -> Node:
    concatenates = len(tokens) > 1 and not all(map(_is_arithmetic, tokens[::2]))
    if concatenates and not (set(tokens[1::2]) == {"+"} and all(map(_is_concatenable, tokens[::2]))):
        raise _unexpected(source, offset)
    return _chained(tokens, concatenates=concatenates)


def _chained(tokens: ParseResults, *, concatenates: bool) -> Node:
    """Return a chain of operands and operators, or a single operand itself."""
    first: Node = tokens[0]
    return Chain(first, tuple(zip(tokens[1::2], tokens[2::2], strict=True)), concatenates) if len(tokens) > 1 else first


def _is_arithmetic(node: Node) -> bool:
    if isinstance(node, Parenthesized):
        return _is_arithmetic(node.operand)
    if isinstance(node, Literal):
        return node.too_large or type(node.value) in (int, float)
    if isinstance(node, Chain):
        return node.operations[0][0] in "+-*/%" and not node.concatenates
    return isinstance(node, Pointer | Call | Negative)


def _is_concatenable(node: Node) -> bool:
    return isinstance(node, Pointer | Call) or (isinstance(node, Literal) and type(node.value) is str)


def _reject_concatenation(source: str, offset: int, nodes: list[Node]) -> None:
    if any(isinstance(node, Chain) and node.concatenates for node in nodes):
        raise _unexpected(source, offset)


def _unexpected(source: str, offset: int) -> Exception:
    from pyparsing import ParseFatalException

    return ParseFatalException(source, offset)
