"""Format strings render as in Data Prepper 2.17; the expected values were observed there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Event, EventError
from opensearch_batch.core.transform.expressions.format_string import compile_format, dated

FIELDS = {
    "i": 1,
    "l": 5_000_000_000,
    "d": 0.1,
    "s": "abc",
    "t": True,
    "n": None,
    "m": {"a": 1, "b": [1, "x"]},
    "a": [1, "two", None, True, 1.5],
    "huge": 12_345_678_901_234_567_890,
    "some-key": 7,
    "and": 3,
    "1": "one",
}
NOW = datetime(2025, 4, 1, 23, 59, 58, 123_456, tzinfo=UTC)


def formed(text: str, fields: dict[str, Any] | None = None) -> str:
    """Render a format string for an event."""
    event = Event.of(json.dumps(FIELDS if fields is None else fields).encode())
    event.metadata.update({"k": "v"})
    return compile_format(text)(event)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", "x"),
        ("", ""),
        ("$ {i}", "$ {i}"),
        ("a-${/i}", "a-1"),
        ("${i}-${l}-${d}", "1-5000000000-0.1"),
        ("a${s}b${t}c", "aabcbtruec"),
        ("${/i}}", "1}"),
        ("${m}", "{a=1, b=[1, x]}"),
        ("${a}", "[1, two, null, true, 1.5]"),
        ("${m/b/0}", "1"),
        ("${huge}", "12345678901234567890"),
        ("${some-key}", "7"),
        ("${and}", "3"),
        ("${1}", "one"),
        ("${2}", "2"),
        ("${true}", "true"),
        ("7-${/missing}", "7-"),
        ("7-${/n}", "7-"),
        ("${/i + 1}", "2"),
        ("${/i == 1}", "true"),
        ("${1 / 3}", "0.3333333333333333"),
        ("${/d + 0.2}", "0.3"),
        ("${length(/s)}", "3"),
        ('${"x"}', "x"),
        ('${getMetadata("k")}', "v"),
        ('${getMetadata("none")}', ""),
    ],
)
def test_a_key_comes_first_and_then_an_expression(text: str, expected: str) -> None:
    """A name that is also an expression is evaluated if the event has no value at the key."""
    assert formed(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e-5, "1.0E-5"),
        (1e7, "1.0E7"),
        (9999999.0, "9999999.0"),
        (123456789.125, "1.23456789125E8"),
        (1.5e300, "1.5E300"),
        (0.001, "0.001"),
        (0.00099, "9.9E-4"),
        (-0.0, "-0.0"),
        (100.0, "100.0"),
        (-1234567890.0, "-1.23456789E9"),
        ({"a": {"b": None, "c": [True, 1.0, "x"]}}, "{a={b=null, c=[true, 1.0, x]}}"),
        ([[]], "[[]]"),
    ],
)
def test_a_value_is_written_as_java_writes_it(value: Any, expected: str) -> None:
    """Document ids rendered from a value are the same as in Data Prepper."""
    assert formed("${v}", {"v": value}) == expected


@pytest.mark.parametrize(("number", "expected"), [("1e999", "Infinity"), ("0.0 / 0", "NaN"), ("-1.0 / 0", "-Infinity")])
def test_infinity_and_nan_render_as_in_java(number: str, expected: str) -> None:
    """A division of fractions by zero does not fail."""
    text = "9" * 400 + ".0" if number == "1e999" else number
    assert formed("${" + text + "}") == expected


@pytest.mark.parametrize("text", ["${missing}", "${n}", "${some key}", "${ i }", "${string}", "${/}", "${/huge + 1}"])
def test_a_missing_value_is_named(text: str) -> None:
    """A key without a slash is not an expression."""
    with pytest.raises(EventError, match="which the format requires"):
        formed(text)


def test_a_number_beyond_a_double_is_named() -> None:
    """The number is kept in the row, and fails only when it is read."""
    with pytest.raises(EventError, match="'v', which the format requires, cannot be read"):
        compile_format("${v}")(Event.of(b'{"v": 1e400}'))


@pytest.mark.parametrize("text", ["${/i", "a ${b", "${i + 1}", "${getMetadata('k')}", "${{1}}"])
def test_an_invalid_format_is_rejected(text: str) -> None:
    """The error is raised at compile time."""
    with pytest.raises(ConfigError, match="write it like"):
        compile_format(text)


def test_a_format_knows_its_keys_and_whether_it_has_any() -> None:
    """A name that is also an expression contributes the keys of the expression."""
    compiled = compile_format('${a/b}-${/c}-${length(/d)}-${getMetadata("k")}-${now()}')
    assert compiled.keys == {("a", "b"), ("c",), ("d",)}
    assert not compiled.is_constant
    assert compile_format("plain").is_constant
    assert compile_format("plain").keys == frozenset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("logs-%{yyyy.MM.dd}", "logs-2025.04.01"),
        ("%{yyyy}/%{MM}/%{dd}/x", "2025/04/01/x"),
        ("%{yyyy-MM-dd'T'HH-mm-ss'Z'}", "2025-04-01T23-59-58Z"),
        ("%{yy M d H m s SSS}", "25 4 1 23 59 58 123"),
        ("%{SSSSSSSSS}", "123456000"),
        ("%{uuuu D DDD}", "2025 91 091"),
        ("%{MMM MMMM EEE EEEE hh a}", "Apr April Tue Tuesday 11 PM"),
        ("%{yyyyy ''}", "02025 '"),
        ("%{'o''clock'}", "o'clock"),
        ("%{}", ""),
        ("100%", "100%"),
    ],
)
def test_a_date_is_written_by_its_pattern(text: str, expected: str) -> None:
    """Date patterns use the letters of Java."""
    assert dated(text, NOW) == expected


def test_a_date_is_in_utc() -> None:
    """The time is converted from any zone."""
    assert dated("%{yyyy.MM.dd HH}", NOW.astimezone(timezone(timedelta(hours=5)))) == "2025.04.01 23"


def test_noon_and_midnight() -> None:
    """Both are rendered as 12, not 0."""
    assert dated("%{hh a}", NOW.replace(hour=0)) == "12 AM"
    assert dated("%{hh a}", NOW.replace(hour=12)) == "12 PM"


@pytest.mark.parametrize(
    "pattern", ["bbb", "ddd", "HHH", "DDDD", "MMMMM", "SSSSSSSSSS", "'open", "[yyyy]", "%{yyyy", "n"]
)
def test_an_unsupported_date_pattern_is_rejected(pattern: str) -> None:
    """A guess could write to a wrong index."""
    with pytest.raises(ConfigError, match="is not supported"):
        dated(f"%{{{pattern}}}", NOW)


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_text_compiles_or_raises_a_known_error(text: str, value: str) -> None:
    """Only ConfigError and EventError are raised."""
    try:
        assert isinstance(formed(text + "${v}", {"v": value}), str)
    except (ConfigError, EventError):
        assert "${" in text


@given(st.text(max_size=12))
def test_any_date_pattern_renders_or_raises_config_error(pattern: str) -> None:
    """Text after the first closing brace is constant."""
    try:
        dated(f"%{{{pattern}}}", NOW)
    except ConfigError as error:
        assert "single quotes" in str(error)  # noqa: PT017 - both ways are right
