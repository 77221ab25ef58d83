"""An expression is read by the grammar of Data Prepper (DataPrepperExpression.g4, 2.17), and by no wider one.

Its surprises are kept: ``and`` and ``or`` bind equally and need single spaces around; a quoted text that starts with
``/`` is a key; a division needs a space behind its ``/``; texts are joined by ``+`` only where nothing else is done.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.java_values import LONG_MAX, single

if TYPE_CHECKING:
    from pyparsing import ParserElement, ParseResults

MAX_LONG_DIGITS = 19
_SHOWN = 40
_NAME = "[A-Za-z0-9_.@]"
_END = f"(?!{_NAME})"
_WHOLE = "(?:0|[1-9][0-9]*)"
_QUOTED_KEY = r'"/(?:[^"\\]|\\[btnfr"' + r"'\\/])*" + '"'
_CHARS = r'(?:[^"\\$]|\\[btnfr"' + r"'\\$])*"
_FLOAT = rf"{_WHOLE}\.0*{_WHOLE}(?:[eE]-?{_WHOLE})?{_END}"
_TYPES = "integer|boolean|big_decimal|long|map|array|double|string"
_HINTS = {
    "'": "a text stands in double quotes",
    "=": "equality is ==",
    "&": "write and, with a single space on each side",
    "|": "write or, with a single space on each side",
    "!": "write not and a space before it",
    "$": "a key is written without ${}, like /status",
    "/": "a division has a space behind its /",
    "[": "an element of an array is written like /list/0",
}
_MISPLACED_TEXT = 'a text that starts with / is a key; where a text is to stand, as in a set, write """ around it'
# As far as a text may go, and a key as somebody writes it who knows of no quotes.
_GOOD_TEXT = re.compile(rf'"(?:"")?{_CHARS}')
_WORD = re.compile(r"""/[^\s"'(){}\[\],;=<>!*%+&|$\\]+""")
_PLAIN_WORD = re.compile(rf"(?:{_NAME}|/)+")
_IN_CALL = re.compile(rf"{_NAME}\s*\([^()]*\Z")
_MATCHED = re.compile(r"[=!]~\s*\Z")
# A backslash before them is none of the grammar's, and two of them are two.
_CLASSES = {"d": "[0-9]", "D": "[^0-9]", "w": "[A-Za-z0-9_]", "W": "[^A-Za-z0-9_]", "s": r"[ \t]", "S": r"[^ \t]"}
_REMEDY = (
    "write it like /status == 200 and /name != null; and, or, in and typeof stand between single spaces, "
    "not has one behind"
)


class Literal(msgspec.Struct, frozen=True):
    """A value that is written out; `too_large` is a whole number that has none."""

    value: Any
    too_large: bool = False


class Pointer(msgspec.Struct, frozen=True):
    """A key, with or without quotes around."""

    text: str
    quoted: bool = False


class Members(msgspec.Struct, frozen=True):
    """A set."""

    literals: tuple[Literal, ...]


class Call(msgspec.Struct, frozen=True):
    """A function and its arguments."""

    name: str
    arguments: tuple[Node, ...]


class Negative(msgspec.Struct, frozen=True):
    """A number with the other sign."""

    of: Node


class Inverted(msgspec.Struct, frozen=True):
    """The word ``not`` and what it inverts."""

    of: Node


class TypeOf(msgspec.Struct, frozen=True):
    """Whether the value at a key is of a type."""

    pointer: Pointer
    type: str


class Chain(msgspec.Struct, frozen=True):
    """Operators that bind equally, done from left to right; `joins` says that they join texts."""

    first: Node
    rest: tuple[tuple[str, Node], ...]
    joins: bool = False


class Parenthesized(msgspec.Struct, frozen=True):
    """What stands in parentheses."""

    of: Node


Node = Literal | Pointer | Members | Call | Negative | Inverted | TypeOf | Chain | Parenthesized


def parse(text: str) -> Node:
    """Return the tree of an expression.

    Raises:
        ConfigError: it is none.
    """
    from pyparsing import ParseBaseException

    try:
        tree: Node = _grammar().parse_string(text, parse_all=True)[0]
    except ParseBaseException as error:
        raise _refusal(text, error.loc) from None
    except RecursionError:
        raise ConfigError(f"the expression {text[:_SHOWN]!r}... is nested too deeply; use fewer parentheses") from None
    return tree


def _refusal(text: str, at: int) -> ConfigError:
    at += len(text[at:]) - len(text[at:].lstrip())
    found = repr(text[at : at + _SHOWN]) if at < len(text) else "the end"
    return ConfigError(f"{text!r} is no expression: {found} does not fit at column {at + 1}; {_hint(text, at)}")


def _hint(text: str, at: int) -> str:
    """Return what to write in place of what does not fit."""
    if text[at : at + 1] == '"':
        return _text_hint(text, at)
    for word in _WORD.finditer(text):
        if word.start() <= at < word.end() and _PLAIN_WORD.fullmatch(word[0]) is None:
            if _IN_CALL.search(text, 0, word.start()):
                return f"a function takes no key like {word[0]}; rename it before, with rename_keys"
            return f'a key with other characters than letters, digits and _ . @ stands in quotes: "{word[0]}"'
    return _HINTS.get(text[at : at + 1], _REMEDY)


def _text_hint(text: str, at: int) -> str:
    good = _GOOD_TEXT.match(text, at)
    end = good.end() if good else at + 1
    if text[end : end + 1] == "\\":
        sign = text[end + 1 : end + 2]
        instead = _CLASSES.get(sign) or (f"[{sign}]" if sign and not sign.isalnum() else "the characters themselves")
        return f"a backslash does not stand before {sign or 'the end'}; in a pattern write {instead}"
    if text[end : end + 1] == "$":
        if _MATCHED.search(text, 0, at):
            return "a pattern always goes to the end of the text; leave the $ away, or write \\$ for the sign itself"
        return "a text that holds $ has a backslash before it"
    if not text[end : end + 1]:
        return "the text has no closing quote"
    return _MISPLACED_TEXT if text[at + 1 : at + 2] == "/" else _REMEDY


@functools.cache
def _grammar() -> ParserElement:
    """Build the grammar; what binds loosest comes last.

    Whether parentheses hold a number or a condition is asked behind them: to try both would take twice as long for
    each pair of parentheses within.
    """
    import pyparsing as pp

    expression = pp.Forward()
    pointer = pp.Regex(f"/{_NAME}+(?:/{_NAME}+)*").add_parse_action(lambda found: Pointer(found[0]))
    key = pointer | pp.Regex(_QUOTED_KEY).add_parse_action(lambda found: Pointer(found[0][1:-1], quoted=True))
    literal = _literals()
    text = _texts()
    members = ("{" - literal + ("," - literal)[...] + "}").add_parse_action(_members)
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
    inverted <<= (pp.Regex("not ").suppress() - (inverted | primary)).add_parse_action(_inverted)
    in_set = _chain(inverted | total, _spaced("not in|in"), members).add_parse_action(_condition)
    type_name = pp.Regex(f"(?:{_TYPES}){_END}")
    type_of = (pointer + _spaced("typeof").suppress() - type_name).add_parse_action(lambda found: TypeOf(*found))
    comparable = type_of | in_set
    ordered = _chain(comparable, pp.Regex("[<>]=?"), comparable).add_parse_action(_condition)
    pattern = key | text
    matched = (pattern + pp.Regex("[=!]~") - pattern).add_parse_action(_condition) | ordered
    equality = _chain(matched, pp.one_of("== !="), matched).add_parse_action(_condition)
    expression <<= _chain(equality, _spaced("and|or"), equality).add_parse_action(_condition)
    whole: ParserElement = pp.StringStart() + expression + pp.StringEnd()
    whole.parse_with_tabs()
    # Done now: the first parse would do it, and there may be two at once.
    whole.streamline()
    return whole


def _chain(first: ParserElement, operators: ParserElement, other: ParserElement) -> ParserElement:
    # The repetition itself skips no space: where there is none, it would take the one that belongs to an operator.
    chain: ParserElement = first + (operators - other)[...].leave_whitespace(recursive=False)
    return chain


def _spaced(words: str) -> ParserElement:
    """Return words that stand between spaces, which are a part of them."""
    import pyparsing as pp

    token = pp.Regex(rf"[ \t\r\n]* ({words}) ").leave_whitespace()
    return token.add_parse_action(lambda found: found[0].strip())


def _texts() -> ParserElement:
    import pyparsing as pp

    # What a quoted key could be is one; backslashes stay, as in the original.
    text = pp.Regex(f'(?!{_QUOTED_KEY})(?:"""{_CHARS}"""|"{_CHARS}")')
    return text.add_parse_action(lambda found: Literal(_unquoted(found[0])))


def _literals() -> ParserElement:
    import pyparsing as pp

    constants = {"true": Literal(value=True), "false": Literal(value=False), "null": Literal(None)}
    return (
        pp.Regex(_FLOAT).add_parse_action(lambda found: Literal(single(float(found[0]))))
        | pp.Regex(_WHOLE + _END).add_parse_action(lambda found: _whole(found[0]))
        | pp.Regex(f"(?:true|false|null){_END}").add_parse_action(lambda found: constants[found[0]])
        | _texts()
    )


def _unquoted(text: str) -> str:
    """Take up to three quotes from each end, an escaped one included: that is what the original takes."""
    return re.sub(r'^"{1,3}|"{1,3}\Z', "", text)


def _whole(text: str) -> Literal:
    fits = len(text) <= MAX_LONG_DIGITS and int(text) <= LONG_MAX
    return Literal(int(text)) if fits else Literal(text, too_large=True)


def _members(found: ParseResults) -> Members:
    return Members(tuple(literal for literal in found if isinstance(literal, Literal)))


def _call(found: ParseResults) -> Call:
    return Call(found[0], tuple(part for part in found[1:] if not isinstance(part, str)))


def _parenthesized(source: str, at: int, found: ParseResults) -> Parenthesized:
    _refuse_joins(source, at, found[1:2])
    return Parenthesized(found[1])


def _negative(source: str, at: int, found: ParseResults) -> Negative:
    if not _is_arithmetic(found[1]):
        raise _misfit(source, at)
    return Negative(found[1])


def _inverted(found: ParseResults) -> Inverted:
    return Inverted(found[0])


def _condition(source: str, at: int, found: ParseResults) -> Node:
    if len(found) == 1:
        node: Node = found[0]
        return node
    _refuse_joins(source, at, found[::2])
    return Chain(found[0], tuple(zip(found[1::2], found[2::2], strict=True)))


def _arithmetic(source: str, at: int, found: ParseResults) -> Node:
    if len(found) == 1:
        node: Node = found[0]
        return node
    joins = not all(_is_arithmetic(operand) for operand in found[::2])
    if joins and not (set(found[1::2]) == {"+"} and all(_is_joinable(operand) for operand in found[::2])):
        raise _misfit(source, at)
    return Chain(found[0], tuple(zip(found[1::2], found[2::2], strict=True)), joins)


def _is_arithmetic(node: Node) -> bool:
    if isinstance(node, Parenthesized):
        return _is_arithmetic(node.of)
    if isinstance(node, Literal):
        return node.too_large or type(node.value) in (int, float)
    if isinstance(node, Chain):
        return node.rest[0][0] in "+-*/%" and not node.joins
    return isinstance(node, Pointer | Call | Negative)


def _is_joinable(node: Node) -> bool:
    return isinstance(node, Pointer | Call) or (isinstance(node, Literal) and type(node.value) is str)


def _refuse_joins(source: str, at: int, nodes: list[Node]) -> None:
    if any(isinstance(node, Chain) and node.joins for node in nodes):
        raise _misfit(source, at)


def _misfit(source: str, at: int) -> Exception:
    from pyparsing import ParseFatalException

    return ParseFatalException(source, at)
