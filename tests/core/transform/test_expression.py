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
    """Return an event as a codec makes it."""
    event = Event.of(json.dumps(FIELDS if fields is None else fields).encode())
    event.metadata.update({"k": "v", "d": 0.1, "m": {"x": 1}, "i": 3})
    event.tags.update({"t1", "t2"})
    return event


def value_of(text: str) -> Any:
    """Return the value of an expression for the event above."""
    return compile_expression(text)(event_of())


def check(text: str, expected: Any) -> None:
    """Compare a value and its type: to Python, True is 1."""
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
    """A quoted text with a slash in front is a key, three quotes make it a text; backslashes stay."""
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
    """The words bind equally, from left to right; with what is no boolean they are false."""
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
    """Fractions are compared with 32 bits; what is of two types is not equal."""
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
    """Only numbers are ordered; anything else is neither before nor behind."""
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
    """A pattern matches the whole text; without a text, and without a pattern, both are false."""
    check(text, expected)


def test_a_pattern_of_the_event_that_is_none_matches_nothing() -> None:
    """It is known only with the event, and each event has its own."""
    event = event_of({"s": "a", "p": "["})
    assert compile_expression("/s =~ /p")(event) is False
    assert compile_expression("/s !~ /p")(event) is False


@pytest.mark.parametrize("pattern", ["[", "[[a]b]", "[a-z&&b]", "a**", "(", "(?<n>a)(?<n>b)", "(?u)a"])
def test_a_pattern_that_cannot_be_matched_is_refused(pattern: str) -> None:
    """It would be false for each event."""
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
    """A member is of the same type, a Long no Integer."""
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
    """A fraction of an event is neither double nor big_decimal there."""
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
    """Whole numbers wrap, a quotient has 64 bits, a fraction of the event 32; texts are joined."""
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
    """A quoted text is not a valid key among arguments."""
    check(text, expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("/ms, \"yyyy-MM-dd'T'HH:mm:ss.SSS\"", "2025-04-01T23:59:58.123"),
        ('/ms, "yyyy-MM-dd HH:mm", "America/New_York"', "2025-04-01 19:59"),
        ('/ms, "HH", "UTC-8"', "15"),
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
    """A time with an offset alone is shown as written where both zones are the same: it is so there."""
    check(f"formatDateTime({arguments})", expected)


def test_the_event_as_a_text_has_no_spaces() -> None:
    """Spaces of the row are not in it, the digits of its numbers are."""
    event = Event.of(b'{"a" : 1.50, "b": [ 1 ]}')
    assert compile_expression("toJsonString()")(event) == '{"a":1.50,"b":[1]}'


def test_the_type_of_an_event_is_what_its_source_noted() -> None:
    """No attribute of this name can be asked for."""
    event = event_of()
    event.metadata[EVENT_TYPE] = "DOCUMENT"
    assert compile_expression("getEventType()")(event) == "DOCUMENT"
    assert compile_expression(f'getMetadata("{EVENT_TYPE}")')(event) is None


@pytest.mark.parametrize(
    "text",
    [
        "/huge",
        "/huge == 1",
        "/huge typeof long",
        "12345678901234567890",
        "/t or 12345678901234567890 == 1",
        "/n typeof array",
        "/missing typeof array",
        '"/a:b"',
        '"/a:b" == null',
        "/i + /s",
        "/i + /missing",
        "/t + 1",
        '"a" + length(/s)',
        "/l % 2",
        "10.0 % 4",
        "5 % 0",
        "-/s",
        "-(1 / 2)",
        '/s in {"abc", 1}',
        '/s in {"abc", null}',
        "/n in {null}",
        "/i in {12345678901234567890}",
        "true or /i + /s == 1",
        "length(/i)",
        "length()",
        "length(null)",
        "length(/s + /s)",
        "length(/s == null)",
        "length(/s typeof string)",
        'hasTags("")',
        "hasTags()",
        "hasTags(/s)",
        "getMetadata(/k)",
        'contains(/i, "1")',
        "contains(5, /missing)",
        "contains(null, /s)",
        "startsWith(/s, null)",
        'cidrContains(/s, "10.0.0.0/8")',
        'cidrContains(/m, "10.0.0.0/8")',
        'cidrContains(/ip, "nonsense")',
        'cidrContains("10.0.0.5", "10.0.0.0/8")',
        "cidrContains(/missing, 5)",
        "cidrContains(/ip)",
        "join(/a)",
        "join(/missing)",
        "join(/s)",
        "getEventType(1)",
        "now(1)",
        "generateUuid(1)",
        "toJsonString(1)",
        'substringAfter(/i, "a")',
        "substringAfter()",
        'formatDateTime(/s, "yyyy")',
        'formatDateTime(/missing, "yyyy")',
        'formatDateTime(/ms, "yyyy", "Nowhere")',
        'formatDateTime(/ms, "yyyy", "+19:00")',
        "formatDateTime(/ms)",
        "formatDateTime(/ms, /s)",
        'formatDateTime(/ms, getMetadata("none"))',
        'formatDateTime(/l, "yyyy" + "b")',
    ],
)
def test_where_there_is_no_value_a_condition_is_false(text: str) -> None:
    """Data Prepper throws while it evaluates these."""
    with pytest.raises(EvaluationError):
        value_of(text)
    assert compile_condition(text)(event_of()) is False


def test_a_number_that_no_reader_takes_has_no_value() -> None:
    """The row has it as it was written, and only the look at it finds out."""
    event = Event.of(b'{"v": [1e400], "w": 1e400}')
    with pytest.raises(EvaluationError, match="/w cannot be read"):
        compile_expression("/w == 1")(event)
    with pytest.raises(EvaluationError, match=r"join\(\) cannot read its argument"):
        compile_expression("join(/v)")(event)


@pytest.mark.parametrize(("text", "expected"), [("/t", True), ("/i", False), ("/missing", False), ('"true"', False)])
def test_a_condition_is_true_where_the_value_is_the_boolean(text: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """Anything else is false; no condition is true."""
    assert compile_condition(text)(event_of()) is expected
    assert compile_condition(None)(event_of()) is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the end does not fit at column 1"),
        ("/i = 1", "'= 1' does not fit at column 4; equality is =="),
        ("/i == 'x'", "column 7; a text stands in double quotes"),
        ("/i == 1 && /t", "'&& /t' does not fit at column 9; write and"),
        ("/i == ", "the end does not fit at column 7"),
        ("6 /2", "'/2' does not fit at column 3; a division has a space behind its /"),
        ("${var} == 1", "a key is written without"),
        ('/p in {"/s"}', 'column 8; a text that starts with / is a key; .* write """ around it'),
        (r'/s =~ ".*\.json"', r"column 7; a backslash does not stand before \.; in a pattern write \[\.\]"),
        (r'/s =~ """a\.b"""', r"column 9; a backslash does not stand before \."),
        (r'"/k\." == 1', r"column 1; a backslash does not stand before \."),
        (r'/s =~ "\d+"', r"a backslash does not stand before d; in a pattern write \[0-9\]"),
        (r'/s =~ "\p{L}"', "before p; in a pattern write the characters themselves"),
        ('/s =~ "^a$"', r"a pattern always goes to the end of the text; leave the \$ away"),
        ('/s == "a$"', r"a text that holds \$ has a backslash before it"),
        ('/s == "a" "b"', "column 11; write it like /status"),
        ('/s == "a', "column 7; the text has no closing quote"),
        ("/user-id == 1", 'column 7; a key with other .* stands in quotes: "/user-id"'),
        ('/s == "x" and not /m/user-id', 'stands in quotes: "/m/user-id"'),
        ("/ü == 1", 'column 1; .* stands in quotes: "/ü"'),
        ("/a:b == 1", 'column 3; .* stands in quotes: "/a:b"'),
        ('contains(/s, "x") and /user-id == 1', 'stands in quotes: "/user-id"'),
        ("length(/user-id) == 1", "column 14; a function takes no key like /user-id; rename it before"),
        ("/a[0] == 1", "column 3; an element of an array is written like /list/0"),
        ("/i == 1 )", r"'\)' does not fit at column 9"),
        ("not(/f)", "there is no function 'not'. Write a space behind not"),
        ("lenght(/s) == 1", "Did you mean 'length'"),
        ("x(/s)", "Use one of length, hasTags"),
        ('formatDateTime(/ms, "bbb")', "'bbb' in the date pattern 'bbb' is not supported"),
        ("(" * 500 + "1" + ")" * 500, "nested too deeply"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_a_remedy(text: str, message: str) -> None:
    """All of them are found before the first event is read."""
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
def test_what_the_grammar_does_not_have_is_refused(text: str) -> None:
    """Each of these was refused there."""
    with pytest.raises(ConfigError, match="is no expression"):
        compile_expression(text)


def test_the_keys_of_an_expression_are_known() -> None:
    """Those of functions and of tests for null as well; a quoted argument is none."""
    found = compile_expression(
        '/a/b == null or length(/c) == 1 and contains("/d", /e) and /f typeof map or "/g-h" in {1}'
    )
    assert found.keys == {("a", "b"), ("c",), ("e",), ("f",), ("g-h",)}


def test_a_test_for_null_reads_no_value() -> None:
    """A vector stays the text it was read as."""
    event = Event.of(b'{"v": [0.1, 0.2], "w": 1e400}')
    assert compile_condition("/v != null and /w != null and /v typeof array")(event) is True
    assert type(event.fields["v"]) is msgspec.Raw


def test_many_terms_and_many_threads_are_no_burden() -> None:
    """A chain is no nest of calls, and one grammar serves all threads."""
    text = " or ".join(f"(/n == {n} and (/s != null))" for n in range(1500))
    with ThreadPoolExecutor(4) as pool:
        conditions = list(pool.map(compile_condition, [text, "/n == 1", text.replace("1499", "7"), "/n > 2000"]))
    event = Event.of(b'{"n": 1499, "s": ""}')
    assert [condition(event) for condition in conditions] == [True, False, False, False]


# What follows compares trees with a plain reading of them.
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
    """The plain reading has no value either."""


def written(tree: Tree) -> str:
    """Write a tree with parentheses around each of its parts."""
    if isinstance(tree, str):
        return tree
    if len(tree) == 2:
        return f"{'-' if tree[0] == 'neg' else 'not '}({written(tree[1])})"
    return f"({written(tree[1])}) {tree[0].strip()} ({written(tree[2])})"


def plainly(tree: Tree) -> Any:
    """Evaluate a tree part by part; a number comes with its bits."""
    if isinstance(tree, str):
        value = VALUES[tree] if tree in VALUES else json.loads(tree)
        return (value, 32 if abs(value) < 2**31 else 64) if type(value) is int else value
    values = [plainly(part) for part in tree[1:]]
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
def test_a_tree_written_out_has_the_value_of_the_tree(tree: Tree) -> None:
    """Parser, operators and the order of evaluation, together."""
    expression = compile_expression(written(tree))
    try:
        expected = _bare(plainly(tree))
    except Unknown:
        with pytest.raises(EvaluationError):
            expression(event_of())
    else:
        found = expression(event_of())
        assert found == expected
        assert type(found) is type(expected)


@given(st.lists(st.sampled_from(["true", "false", "/t", "/f", "/i == 1", "/i > 1"]), min_size=2, max_size=6), st.data())
def test_and_or_without_parentheses_go_from_left_to_right(terms: list[str], data: st.DataObject) -> None:
    """The same as with each pair in parentheses."""
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
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    """Nothing else is raised, and what is accepted can be asked."""
    try:
        condition = compile_condition(text)
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - both ways are right
    else:
        assert condition(event_of()) in (True, False)
