"""An expression gives for an event what Data Prepper 2.17 gave for it; the values in the tables were observed there."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Event
from opensearch_batch.core.transform.events.java_values import EvaluationError
from opensearch_batch.core.transform.expressions.expression import compile_condition, compile_expression
from opensearch_batch.core.transform.expressions.functions import EVENT_TYPE

FIELDS = {
    "i": 1,
    "l": 5_000_000_000,
    "d": 0.1,
    "s": "abc",
    "t": True,
    "f": False,
    "n": None,
    "m": {"a": 1, "b": [1, "x"]},
    "a": [1, "two", None, True, 1.5],
    "p": "/s",
    "u": "/x",
    "x": "X",
    "big": 16_777_217,
    "huge": 12_345_678_901_234_567_890,
    "li": [[1, 2], {"q": "r"}],
    "some-key": 7,
    "ip": "10.0.0.5",
    "ip6": "2001:db8::1",
    "ms": 1_743_551_998_123,
    "date": "2025-04-01T23:59:58.123Z",
    "offset": "2025-07-01T10:20:30+02:00",
    "region": "2025-07-01T10:20:30+02:00[Europe/Berlin]",
    "local": "2025-07-01T10:20",
}


def event_of(fields: dict[str, Any] | None = None) -> Event:
    """Return an event with metadata and tags."""
    event = Event.of(json.dumps(FIELDS if fields is None else fields).encode())
    event.metadata.update({"k": "v", "d": 0.1, "m": {"x": 1}, "i": 3})
    event.tags.update({"t1", "t2"})
    return event


def value_of(text: str) -> Any:
    """Return the value of an expression for the event above."""
    return compile_expression(text)(event_of())


def check(text: str, expected: Any) -> None:
    """Compare a value and its type, because True equals 1 in Python."""
    found = value_of(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/i", 1),
        ("/i/2", None),
        ("/missing", None),
        ("/n", None),
        ("/a/1", "two"),
        ("/a/9", None),
        ("/li/1/q", "r"),
        ('"/li/0/1"', 2),
        ('"/some-key"', 7),
        ('"/some key"', None),
        ("/m", {"a": 1, "b": [1, "x"]}),
        ("/d", 0.1),
        ("/l", 5_000_000_000),
        ("1.50", 1.5),
        ("1.5e-3", 0.0015),
        ("16777217.0", 16777216.0),
        ("2147483648", 2_147_483_648),
        ("true", True),
        ("null", None),
        ('""', ""),
        ('"a\tb"', "a\tb"),
        ('""""""', ""),
        ('"""/s"""', "/s"),
        (r'"a\"c"', r"a\"c"),
        (r'"\""', "\\"),
        (r'"/a\$"', r"/a\$"),
        ("{1, 1}", [1]),
    ],
)
def test_keys_and_literals(text: str, expected: Any) -> None:
    """A quoted string that starts with a slash is a key, unless it has three quotes; backslashes are kept."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/i == 1 or /i == 2 and /i == 9", False),
        ("/i == 1 or (/i == 2 and /i == 9)", True),
        ("true and true and false or true", True),
        ("/i == 1\n and /t", True),
        ("/i == 1  and  /t", True),
        ("/t or 5", False),
        ("5 or /t", False),
        ("/t and /missing", False),
        ("not /t", False),
        ("not not /t", True),
        ("not  /f", True),
        ("not (/missing > 1)", True),
        ("not 5", False),
        ("not null", False),
        ("not /f == true", True),
        ("/t == not /f", True),
        ("/t and not /f", True),
    ],
)
def test_and_or_not(text: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """`and` and `or` have equal precedence; an operand that is not a boolean gives false."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/i == 1", True),
        ("/i==1", True),
        ("/i == 1.0", True),
        ("/d == 0.1", True),
        ("/d != 0.1", False),
        ("/big == 16777216.0", True),
        ("/big == 16777216", False),
        ("(1 / 10) == 0.1", True),
        ("1 / 2 == 0.5", True),
        ("/t == 1", False),
        ('true == "true"', False),
        ("/i == /s", False),
        ("/m == /m", True),
        ("/a == /a", True),
        ("/a/0 == /a/3", False),
        ("{1} == {true}", False),
        ('/p == "/s"', False),
        ('/u == "/x"', False),
        ('/p == """/s"""', True),
        ("/missing == null", True),
        ("null == /n", True),
        ("/m != null", True),
        ("null == null", True),
        ("/i == 1 == true", True),
        ("true == 1 < 2", True),
        ("null != /s", True),
    ],
)
def test_equality(text: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """Fractions are compared with 32 bits; values of different types are not equal."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/i < 2", True),
        ("/i <= 1.0", True),
        ("/d < 0.1", False),
        ("/d <= 0.1", True),
        ("/d >= 0.1", True),
        ("/big < 16777216.5", False),
        ("/l > 4999999999", True),
        ("(1 / 10) < 0.1", True),
        ("(1 / 10) >= 0.1", False),
        ("0.1 <= (1 / 10)", True),
        ("0.1 < (1 / 10)", False),
        ("/missing > 1", False),
        ("/missing <= 1", False),
        ("/s > 1", False),
        ("/t > 0", False),
        ("1 < 2 < 3", False),
        ("1 < 2 == true", True),
    ],
)
def test_ordering(text: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """Only numbers are ordered; any other comparison is false."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('/s =~ "a.*"', True),
        ('/s =~ "a"', False),
        ('/s !~ "a"', True),
        ('/missing =~ "a"', False),
        ('/missing !~ "a"', False),
        ('/i !~ "a"', False),
        ("/s =~ /s", True),
        ("/s =~ /i", False),
        ('"abc" =~ "a.c"', True),
        (r'/s =~ "\\w+"', False),
        ('"x" =~ "x" == true', True),
        (r'"a\nb" =~ "a.*"', True),
        ('"a\rb" =~ "a.b"', False),
        ('"a\rb" =~ "(?s)a.b"', True),
        ('"é" =~ "(?i)É"', False),
        ('"a.c" =~ "a[.]c"', True),
    ],
)
def test_patterns(text: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """A pattern matches the whole string; both operators are false without a string or a pattern."""
    check(text, expected)


def test_an_invalid_pattern_in_the_event_matches_nothing() -> None:
    """The pattern is read from each event."""
    event = event_of({"s": "a", "p": "["})
    assert compile_expression("/s =~ /p")(event) is False
    assert compile_expression("/s !~ /p")(event) is False


@pytest.mark.parametrize("pattern", ["[", "[[a]b]", "[a-z&&b]", "a**", "(", "(?<n>a)(?<n>b)", "(?u)a"])
def test_an_invalid_constant_pattern_is_rejected(pattern: str) -> None:
    """The condition would be false for every event."""
    with pytest.raises(ConfigError, match="pattern"):
        compile_expression(f'/s =~ "{pattern}"')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/i in {1, 2}", True),
        ("/i in {1.0, 2}", False),
        ("/i not in {1 ,2}", False),
        ("/d in {0.1}", True),
        ('/s  in  {"abc"}', True),
        ("/t in {true}", True),
        ("/t in {1}", False),
        ('/missing in {"a"}', False),
        ('/missing not in {"a"}', True),
        ("/m in {1}", False),
        ("2147483648 - 1 == 2147483647", True),
        ("2147483648 - 1 in {2147483647}", False),
        ("/i in {1} in {true}", True),
        ('/p in {"""/s"""}', True),
    ],
)
def test_sets(text: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """A value must have the type of the member; a Long is not an Integer."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/i typeof integer", True),
        ("/i  typeof  integer", True),
        ("/l typeof long", True),
        ("/l typeof integer", False),
        ("/d typeof double", False),
        ("/d typeof big_decimal", False),
        ("/s typeof string", True),
        ("/t typeof boolean", True),
        ("/m typeof map", True),
        ("/a typeof array", True),
        ("/n typeof map", False),
        ("/missing typeof string", False),
        ("not (/i typeof string)", True),
    ],
)
def test_types(text: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """As in Data Prepper, a fraction in an event is neither double nor big_decimal."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("10 - 4 - 3", 3),
        ("1 + -2", -1),
        ("--5", 5),
        ("-(5)", -5),
        ("1-2", -1),
        ("6 / 2", 3.0),
        ("1 / 3", 0.3333333333333333),
        ("1.0 / 3", 0.33333334),
        ("/d + /d", 0.2),
        ("/i * 0.1", 0.1),
        ("(1 / 10) + 0.1", 0.20000000149011612),
        ("/l * 3", 15_000_000_000),
        ("/l + 0.5", 5e9),
        ("-/d", -0.1),
        ("-/l", -5_000_000_000),
        ("10 % 4", 2),
        ("(0 - 10) % 4", -2),
        ("2147483647 + 1", -2_147_483_648),
        ("9223372036854775807 + 1", -9_223_372_036_854_775_808),
        ("2147483647 * 2147483647", 1),
        ("5 / 0", math.inf),
        ("-5 / 0", -math.inf),
        ("5.0 / 0", math.inf),
        ("/s + /s", "abcabc"),
        ('"a" + getMetadata("k") + /s', "avabc"),
        ("length(/a) + 1", 6),
    ],
)
def test_arithmetic(text: str, expected: Any) -> None:
    """Integers wrap, quotients have 64 bits, fractions in the event have 32; strings are joined."""
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("length(/s)", 3),
        ("length (/s)", 3),
        ('length("/s")', 2),
        ('length("ü😀")', 3),
        ("length((/s))", 3),
        ("length(/a)", 5),
        ("length(/m)", 2),
        ("length(/missing)", None),
        ('length("a" + "b")', 2),
        ('length(getMetadata("k"))', 1),
        ('hasTags("t1")', True),
        ('hasTags("t1", "t3")', False),
        ('getMetadata("k")', "v"),
        ('getMetadata("/k")', "v"),
        ('getMetadata(" k ")', "v"),
        ('getMetadata("m/x")', 1),
        ('getMetadata("m/y")', None),
        ('getMetadata("k/y")', None),
        ('getMetadata("m/")', None),
        ('getMetadata("m/x/")', 1),
        ('getMetadata("")', None),
        ('getMetadata("none")', None),
        ('getMetadata("d") == 0.1', True),
        ('contains("abc", "b")', True),
        ('contains(/s, "z")', False),
        ('contains(/s, "/s")', False),
        ('contains(/missing, "b")', False),
        ("contains(/missing, 5)", False),
        ('contains("abc", /missing)', False),
        ('startsWith(/s, "ab")', True),
        ('startsWith(/s, "b")', False),
        ('cidrContains(/ip, "10.0.0.0/8")', True),
        ('cidrContains(/ip, "10.0.0.5")', True),
        ('cidrContains(/ip, "10.0.0.4/8")', False),
        ('cidrContains(/ip, "11.0.0.0/8", "10.0.0.0/24")', True),
        ('cidrContains(/ip, "2001:db8::/32")', False),
        ('cidrContains(/ip6, "2001:db8::/32")', True),
        ('cidrContains(/i, "10.0.0.0/8")', False),
        ('cidrContains(/missing, "10.0.0.0/8")', False),
        ("join(/m/b)", "1,x"),
        ('join("-", /m/b)', "1-x"),
        (r'join("\\, ", /m/b)', "1, x"),
        ("join(/li)", "[1, 2],{q=r}"),
        ('join("-", /m)', {"a": 1, "b": "1-x"}),
        ("getEventType()", "LOG"),
        ('substringAfter(/s, "a")', "bc"),
        ('substringAfter(/s, "zz")', "abc"),
        ('substringAfter(/s, "")', "abc"),
        ('substringAfter(/missing, "a")', None),
        ("substringAfter(/s, /missing)", "abc"),
        ('substringAfterLast("a.b.c", ".")', "c"),
        ('substringBefore("a.b.c", ".")', "a"),
        ('substringBefore("/a/b", "/")', ""),
        ('substringBeforeLast("a.b.c", ".")', "a.b"),
        ('substringBeforeLast("abc", ".")', "abc"),
        ("now() > 1700000000000", True),
        ("length(generateUuid())", 36),
        ("generateUuid() == generateUuid()", False),
    ],
)
def test_functions(text: str, expected: Any) -> None:
    """A quoted argument is a string, not a key."""
    check(text, expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("/ms, \"yyyy-MM-dd'T'HH:mm:ss.SSS\"", "2025-04-01T23:59:58.123"),
        ('/ms, "yyyy-MM-dd HH:mm", "America/New_York"', "2025-04-01 19:59"),
        ('/ms, "HH", "UTC-8"', "15"),
        ('/ms, "HH", "-0800"', "15"),
        ('/date, "dd HH:mm:ss.SSSSSS", "+05:30"', "02 05:29:58.123000"),
        ('/date, "yy/M/d H:m:s"', "25/4/1 23:59:58"),
        ('/d, "yyyy"', "1970"),
        ('/ms, "EEE MMM dd hh:mm a"', "Tue Apr 01 11:59 PM"),
        ("/ms, \"uuuu 'o''clock'\"", "2025 o'clock"),
        ('/local, "HH:mm:ss", "Z", "+05:00"', "05:20:00"),
        ('/offset, "HH"', "10"),
        ('/offset, "HH", "UTC", "+05:00"', "08"),
        ('/region, "HH"', "08"),
    ],
)
def test_dates(arguments: str, expected: str) -> None:
    """As in Data Prepper, a time with an offset but no region is unchanged if both zones are the same."""
    check(f"formatDateTime({arguments})", expected)


def test_to_json_string_has_no_spaces() -> None:
    """Whitespace of the row is removed; numbers keep their digits."""
    event = Event.of(b'{"a" : 1.50, "b": [ 1 ]}')
    assert compile_expression("toJsonString()")(event) == '{"a":1.50,"b":[1]}'


def test_the_event_type_is_set_by_the_source() -> None:
    """GetMetadata cannot read the key of the event type."""
    event = event_of()
    event.metadata[EVENT_TYPE] = "DOCUMENT"
    assert compile_expression("getEventType()")(event) == "DOCUMENT"
    assert compile_expression(f'getMetadata("{EVENT_TYPE}")')(event) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/huge", "64 bits, which operators"),
        ("/huge == 1", "64 bits, which operators"),
        ("/huge typeof long", "64 bits, which operators"),
        ("12345678901234567890", "more than 64 bits"),
        ("/t or 12345678901234567890 == 1", "more than 64 bits"),
        ("/n typeof array", "typeof array is not defined"),
        ("/missing typeof array", "typeof array is not defined"),
        ('"/a:b"', "is not a valid key"),
        ('"/a:b" == null', "is not a valid key"),
        ("/i + /s", "arithmetic requires numbers"),
        ("/i + /missing", "arithmetic requires numbers"),
        ("/t + 1", "arithmetic requires numbers"),
        ('"a" + length(/s)', "arithmetic requires numbers"),
        ("/l % 2", "% requires two 32-bit integers"),
        ("10.0 % 4", "% requires two 32-bit integers"),
        ("5 % 0", "% requires two 32-bit integers"),
        ("-/s", "- requires an integer"),
        ("-(1 / 2)", "- requires an integer"),
        ('/s in {"abc", 1}', "the members of a set must be"),
        ('/s in {"abc", null}', "the members of a set must be"),
        ("/n in {null}", "the members of a set must be"),
        ("/i in {12345678901234567890}", "a member of the set has more than 64"),
        ("true or /i + /s == 1", "arithmetic requires numbers"),
        ("length(/i)", "must be a string"),
        ("length()", "requires 1 argument, not 0"),
        ("length(null)", "must be a key without quotes"),
        ("length(/s + /s)", "arithmetic requires numbers"),
        ("length(/s == null)", "must be a key without quotes"),
        ("length(/s typeof string)", "must be a key without quotes"),
        ('hasTags("")', "requires strings that are not empty"),
        ("hasTags()", "requires strings that are not empty"),
        ("hasTags(/s)", "must be a string"),
        ("getMetadata(/k)", "must be a string"),
        ('contains(/i, "1")', "must be a string"),
        ("contains(5, /missing)", "must be a string"),
        ("contains(null, /s)", "must be a string"),
        ("startsWith(/s, null)", "must be a string"),
        ('cidrContains(/s, "10.0.0.0/8")', "'abc' is not an IP address"),
        ('cidrContains(/m, "10.0.0.0/8")', "requires the key of an IP address"),
        ('cidrContains(/ip, "nonsense")', "is not a CIDR block"),
        ('cidrContains("10.0.0.5", "10.0.0.0/8")', "must be a key without quotes"),
        ("cidrContains(/missing, 5)", "must be a string"),
        ("cidrContains(/ip)", "a key and at least one CIDR block"),
        ("join(/a)", "an array that contains null"),
        ("join(/missing)", "the key of an array or object"),
        ("join(/s)", "the key of an array or object"),
        ("getEventType(1)", "requires 0 arguments, not 1"),
        ("now(1)", "requires 0 arguments, not 1"),
        ("generateUuid(1)", "requires 0 arguments, not 1"),
        ("toJsonString(1)", "requires 0 arguments, not 1"),
        ('substringAfter(/i, "a")', "must be a string"),
        ("substringAfter()", "requires 2 arguments, not 0"),
        ('formatDateTime(/s, "yyyy")', "is neither an ISO 8601 time"),
        ('formatDateTime(/missing, "yyyy")', "is neither an ISO 8601 time"),
        ('formatDateTime(/ms, "yyyy", "Nowhere")', "is not a time zone"),
        ('formatDateTime(/ms, "yyyy", "+19:00")', "is not a time zone"),
        ('formatDateTime(/ms, "yyyy", "+18:30")', "is not a time zone"),
        ('formatDateTime(/ms, "yyyy", "+05:75")', "is not a time zone"),
        ('formatDateTime(/ms, "yyyy", "UTC+5:30")', "is not a time zone"),
        ("formatDateTime(/ms)", "requires a key, a pattern"),
        ("formatDateTime(/ms, /s)", "must be a string"),
        ('formatDateTime(/ms, getMetadata("none"))', "must be a string"),
        ('formatDateTime(/l, "yyyy" + "b")', "in the date pattern"),
    ],
)
def test_a_condition_without_a_value_is_false(text: str, message: str) -> None:
    """Data Prepper throws while it evaluates these expressions."""
    with pytest.raises(EvaluationError, match=message):
        value_of(text)
    assert compile_condition(text)(event_of()) is False


def test_a_number_beyond_a_double_has_no_value() -> None:
    """The number is kept in the row, and fails only when it is read."""
    event = Event.of(b'{"v": [1e400], "w": 1e400}')
    with pytest.raises(EvaluationError, match="/w cannot be read"):
        compile_expression("/w == 1")(event)
    with pytest.raises(EvaluationError, match=r"join\(\) cannot read its argument"):
        compile_expression("join(/v)")(event)


@pytest.mark.parametrize(("text", "expected"), [("/t", True), ("/i", False), ("/missing", False), ('"true"', False)])
def test_a_condition_is_true_only_for_the_boolean_true(text: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """Any other value is false; None as the condition is true."""
    assert compile_condition(text)(event_of()) is expected
    assert compile_condition(None)(event_of()) is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unexpected end at column 1"),
        ("/i = 1", "unexpected '= 1' at column 4; use == for equality"),
        ("/i == 'x'", "column 7; write strings in double quotes"),
        ("/i == 1 && /t", "unexpected '&& /t' at column 9; write and"),
        ("/i == ", "unexpected end at column 7"),
        ("6 /2", "unexpected '/2' at column 3; a division requires a space after /"),
        ("${var} == 1", "write keys without"),
        ('/p in {"/s"}', 'column 8; a string that starts with / is a key; .* write """ around it'),
        (r'/s =~ ".*\.json"', r"column 7; a backslash is not allowed before \.; in a pattern write \[\.\]"),
        (r'/s =~ """a\.b"""', r"column 9; a backslash is not allowed before \."),
        (r'"/k\." == 1', r"column 1; a backslash is not allowed before \."),
        (r'/s =~ "\d+"', r"a backslash is not allowed before d; in a pattern write \[0-9\]"),
        (r'/s =~ "\p{L}"', "before p; in a pattern write the characters themselves"),
        ('/s =~ "^a$"', r"a pattern always matches the whole string; remove the \$"),
        ('/s == "a$"', r"write \\\$ for a dollar sign in a string"),
        ('/s == "a" "b"', "column 11; write it like /status"),
        ('/s == "a', "column 7; the string has no closing quote"),
        ("/user-id == 1", 'column 7; quote a key with .* @: "/user-id"'),
        ('/s == "x" and not /m/user-id', 'quote a key with .* @: "/m/user-id"'),
        ("/ü == 1", 'column 1; quote a key with .* @: "/ü"'),
        ("/a:b == 1", 'column 3; quote a key with .* @: "/a:b"'),
        ('contains(/s, "x") and /user-id == 1', 'quote a key with .* @: "/user-id"'),
        ("length(/user-id) == 1", "column 14; a function does not accept a key like /user-id; rename it first"),
        ("/a[0] == 1", "column 3; write an array element like /list/0"),
        ("/i == 1 )", r"unexpected '\)' at column 9"),
        ("not(/f)", "there is no function 'not'. Write a space after not"),
        ("lenght(/s) == 1", "Did you mean 'length'"),
        ("x(/s)", "Use one of length, hasTags"),
        ('formatDateTime(/ms, "bbb")', "'bbb' in the date pattern 'bbb' is not supported"),
        ("(" * 500 + "1" + ")" * 500, "nested too deeply"),
    ],
)
def test_a_syntax_error_names_column_and_remedy(text: str, message: str) -> None:
    """All errors are raised at compile time."""
    with pytest.raises(ConfigError, match=message):
        compile_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        '/s =~ "\\w+"', '"a$"', "6/2", "{-1}", "1.5e03", "007", "1.", ".5", "contains", "-true", '-"a"', "-(1 == 1)",
        "not /i + 1", '("a" + "b")', '"a" + "b" == "ab"', '"a"+("b")', '"a" + 1', '1 + "a"', '"a" - "b"',
        '/s + "x" in {"abcx"}', "/s typeof strings", '"/i" typeof integer', "string", "/i == 1\nand /t",
        '"x" =~ "x" =~ "y"', '(/s) =~ "abc"', '/s =~ ("abc")', 'length(/s) =~ "3"', '1 + 1 =~ "3"', '"a',
        "(/i == 1)and(/t)", "(/i == 1) and(/t)", "/b<300and/b>200", "/a in{200, 202}", "/a in {200,}", "/a in 5",
        "/a in ({200})", "{true or false}", "{(5)}", "{/s}", "true an true", 'hasTags(,"a")', 'hasTags("a",)',
        "hasTags(a)", "/status - ", " * /status ", "not", "==", "trueand/s", "/i == 1;", "/i eq 1", "(1 < 2) + 1",
    ],
)  # fmt: skip
def test_an_expression_outside_the_grammar_is_rejected(text: str) -> None:
    """Data Prepper rejected each of these expressions."""
    with pytest.raises(ConfigError, match="is not an expression"):
        compile_expression(text)


def test_the_keys_of_an_expression_are_known() -> None:
    """Keys of functions and of null tests are included; a quoted argument is not a key."""
    found = compile_expression(
        '/a/b == null or length(/c) == 1 and contains("/d", /e) and /f typeof map or "/g-h" in {1}'
    )
    assert found.keys == {("a", "b"), ("c",), ("e",), ("f",), ("g-h",)}


def test_a_null_test_decodes_no_value() -> None:
    """A vector stays undecoded."""
    event = Event.of(b'{"v": [0.1, 0.2], "w": 1e400}')
    assert compile_condition("/v != null and /w != null and /v typeof array")(event) is True
    assert type(event.fields["v"]) is msgspec.Raw


def test_many_terms_and_threads_are_supported() -> None:
    """A chain does not nest calls, and threads share one grammar."""
    text = " or ".join(f"(/n == {n} and (/s != null))" for n in range(1500))
    with ThreadPoolExecutor(4) as pool:
        conditions = list(pool.map(compile_condition, [text, "/n == 1", text.replace("1499", "7"), "/n > 2000"]))
    event = Event.of(b'{"n": 1499, "s": ""}')
    assert [condition(event) for condition in conditions] == [True, False, False, False]


# The following tests compare random trees with a plain evaluation of them.
NUMBERS = ("0", "1", "2", "2147483647", "/i", "/l", "/missing")
VALUES = {"/i": 1, "/l": 5_000_000_000, "/missing": None}
Tree = str | tuple[str, "Tree", "Tree"] | tuple[str, "Tree"]


def _numeric(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.tuples(st.sampled_from("+-*"), children, children) | st.tuples(st.just("neg"), children)


def _boolean(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    words = st.sampled_from([" and ", " or ", " == ", " != "])
    return st.tuples(words, children, children) | st.tuples(st.just("not"), children)


numeric: st.SearchStrategy[Tree] = st.recursive(st.sampled_from(NUMBERS), _numeric, max_leaves=6)
compared: st.SearchStrategy[Tree] = st.tuples(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numeric, numeric)
boolean: st.SearchStrategy[Tree] = st.recursive(compared | st.sampled_from(["true", "false"]), _boolean, max_leaves=8)


class Unknown(Exception):
    """The plain evaluation has no value either."""


def written(tree: Tree) -> str:
    """Format a tree with parentheses around each of its parts."""
    if isinstance(tree, str):
        return tree
    if len(tree) == 2:
        return f"{'-' if tree[0] == 'neg' else 'not '}({written(tree[1])})"
    return f"({written(tree[1])}) {tree[0].strip()} ({written(tree[2])})"


def plain_value(tree: Tree) -> Any:
    """Evaluate a tree part by part; a number comes with its bits."""
    if isinstance(tree, str):
        value = VALUES[tree] if tree in VALUES else json.loads(tree)
        return (value, 32 if abs(value) < 2**31 else 64) if type(value) is int else value
    values = [plain_value(part) for part in tree[1:]]
    sign = tree[0].strip()
    if sign in ("not", "and", "or"):
        known = all(type(value) is bool for value in values)
        return known and {"not": not values[0], "and": all(values), "or": any(values)}[sign]
    if sign in ("==", "!="):
        alike = _bare(values[0]) == _bare(values[1]) and type(values[0]) is type(values[1])
        return alike is (sign == "==")
    if sign in ("<", "<=", ">", ">="):
        return all(type(value) is tuple for value in values) and _before(sign, values[0][0], values[1][0])
    return _calculated(sign, values)


def _bare(value: Any) -> Any:
    return value[0] if type(value) is tuple else value


def _before(sign: str, left: int, right: int) -> bool:
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]


def _calculated(sign: str, values: list[Any]) -> tuple[int, int]:
    if not all(type(value) is tuple for value in values):
        raise Unknown
    bits = max(value[1] for value in values)
    left, right = values[0][0], values[-1][0]
    number = {"+": left + right, "-": left - right, "*": left * right, "neg": -left}[sign]
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1), bits


@given(boolean | numeric)
@example((" or ", "true", (" == ", ("+", "/i", "/missing"), "1")))
@example(("+", ("-", "/l", "/l"), ("*", "2147483647", "2")))
def test_an_expression_has_the_value_of_its_tree(tree: Tree) -> None:
    """Parser, operators and evaluation order agree with the plain evaluation."""
    expression = compile_expression(written(tree))
    try:
        expected = _bare(plain_value(tree))
    except Unknown:
        with pytest.raises(EvaluationError, match="requires"):
            expression(event_of())
    else:
        found = expression(event_of())
        assert found == expected
        assert type(found) is type(expected)


@given(st.lists(st.sampled_from(["true", "false", "/t", "/f", "/i == 1", "/i > 1"]), min_size=2, max_size=6), st.data())
def test_and_or_without_parentheses_go_from_left_to_right(terms: list[str], data: st.DataObject) -> None:
    """The value is the same as with parentheses around each pair."""
    words = data.draw(st.lists(st.sampled_from([" and ", " or "]), min_size=len(terms) - 1, max_size=len(terms) - 1))
    flat = nested = terms[0]
    for word, term in zip(words, terms[1:], strict=True):
        flat, nested = f"{flat}{word}{term}", f"({nested}){word}({term})"
    assert value_of(flat) is value_of(nested)


PIECES = [
    "/a",
    '"x"',
    '"/y"',
    '"""',
    '"',
    "1",
    "0.5",
    "(",
    ")",
    "{",
    "}",
    ",",
    "-",
    "==",
    "=~",
    "<",
    "/",
    "length",
    "true",
    "null",
    "\\",
    "$",
    "[",
    "join(",
    "map",
]
SPACED = ["not ", " and ", " in ", " typeof ", " ", "\n", "\t", "9" * 5000]
pieces = st.sampled_from(PIECES + SPACED)


@given(st.text(max_size=30) | st.lists(pieces, max_size=12).map("".join))
@example('"\udc00"')
@example("length(/" + "a" * 3000 + ")")
@example('/a =~ "[[:"')
def test_any_text_compiles_or_raises_config_error(text: str) -> None:
    """No other error is raised, and a compiled condition can be evaluated."""
    try:
        condition = compile_condition(text)
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - both ways are right
    else:
        assert condition(event_of()) in (True, False)
