"""convert_type converts as Data Prepper's does (ConvertEntryTypeProcessor and its typeconverter package, 2.17)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.core.transform.processor_runs import Fields, compiled, done, refused

FAILS = object()


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        ("integer", '"123"', "123"),
        ("integer", '"+5"', "5"),
        ("integer", "true", "1"),
        ("integer", "2147483647", "2147483647"),
        ("integer", "2147483648", FAILS),
        ("integer", '"-2147483649"', FAILS),
        ("integer", "1.0", FAILS),
        ("integer", '"1.0"', FAILS),
        ("integer", '" 1"', FAILS),
        ("integer", '"1_0"', FAILS),
        ("integer", '"\u0661"', FAILS),
        ("integer", "{}", FAILS),
        ("long", '"2147483648"', "2147483648"),
        ("long", '"9223372036854775808"', FAILS),
        ("long", "9223372036854775808", FAILS),
        ("long", "-1.9", "-1"),
        ("long", "1e30", "9223372036854775807"),
        ("long", "false", "0"),
        ("double", '"1"', "1.0"),
        ("double", '" 1.5e2f "', "150.0"),
        ("double", '".5"', "0.5"),
        ("double", "3", "3.0"),
        ("double", "true", "1.0"),
        ("double", '"NaN"', FAILS),
        ("double", '"1e999"', FAILS),
        ("double", '"0x1p3"', FAILS),
        ("string", "1", '"1"'),
        ("string", "1.50", '"1.5"'),
        ("string", "12345678.0", '"1.2345678E7"'),
        ("string", "0.0001", '"1.0E-4"'),
        ("string", "true", '"true"'),
        ("string", '"a"', '"a"'),
        ("string", "{}", FAILS),
        ("boolean", '"TRUE"', "true"),
        ("boolean", '"yes"', "false"),
        ("boolean", "0", "false"),
        ("boolean", "0.1", "true"),
        ("boolean", "false", "false"),
        ("big_decimal", '"1703908412.707011"', "1703908412.707011"),
        ("big_decimal", '"1E+3"', "1E+3"),
        ("big_decimal", "0.1", "0.1"),
        ("big_decimal", "7", "7"),
        ("big_decimal", "true", "1"),
        ("big_decimal", '" 1"', FAILS),
        ("big_decimal", '"NaN"', FAILS),
        ("big_decimal", "18446744073709551616", FAILS),
        ("integer", '["1","2"]', "[1,2]"),
        ("integer", '["1","x"]', FAILS),
        ("integer", '["1",null]', FAILS),
        ("integer", "[]", "[]"),
        ("string", "1e999", FAILS),
    ],
)
def test_conversion(wanted: str, text: str, expected: Any) -> None:
    """A value that cannot be converted is kept, and the event is tagged."""
    row = f'{{"k":{text}}}'
    result = done("convert_type", {"key": "k", "type": wanted, "tags_on_failure": ["bad"]}, row)
    changed = row if expected is FAILS else f'{{"k":{expected}}}'
    assert json.loads(result.event.to_json()) == json.loads(changed)
    assert result.event.to_json().decode() == changed
    assert (result.event.tags, bool(result.failure)) == (({"bad"}, True) if expected is FAILS else (set(), False))


@pytest.mark.parametrize(
    ("scale", "given", "expected"),
    [
        (5, "2147483647", "2147483647.00000"),
        (5, "1703908412.707015", "1703908412.70702"),
        (5, "1703908412.707025", "1703908412.70702"),
        (-2, "1250", "1.2E+3"),
    ],
)
def test_scale(scale: int, given: str, expected: str) -> None:
    """The last digit is rounded half to even."""
    options = {"key": "k", "type": "big_decimal", "scale": scale}
    assert done("convert_type", options, {"k": given}).event.to_json().decode() == f'{{"k":{expected}}}'


def test_a_scale_with_too_many_digits_fails() -> None:
    """The conversion does not allocate a billion digits."""
    result = done("convert_type", {"key": "k", "type": "big_decimal", "scale": 1}, {"k": "1e999999999"})
    assert result[:2] == ({"k": "1e999999999"}, "k: a scale of 1 needs more than 10000 digits")


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ({"key": "a/b"}, {"a": {"b": "1"}}, {"a": {"b": 1}}),
        ({"key": "a/0"}, {"a": ["1", "2"]}, {"a": [1, "2"]}),
        ({"keys": ["a", "absent", "b"]}, {"a": "1", "b": "2", "c": "3"}, {"a": 1, "b": 2, "c": "3"}),
        ({"key": "a"}, {"a": None}, {"a": None}),
        ({"key": "a", "null_conversion_values": ["-", "0"]}, {"a": "-", "b": 1}, {"b": 1}),
        ({"key": "a", "null_conversion_values": ["-", "0"]}, {"a": 0, "b": 1}, {"b": 1}),
        ({"key": "a", "convert_when": "/b == 1"}, {"a": "1", "b": 2}, {"a": "1", "b": 2}),
        ({"key": "a", "convert_when": "/b == 1"}, {"a": "1", "b": 1}, {"a": 1, "b": 1}),
        (
            {"key": "n", "iterate_on": "list"},
            {"list": [{"n": "1"}, {"n": None}, {"o": "1"}]},
            {"list": [{"n": 1}, {"n": None}, {"o": "1"}]},
        ),
        ({"key": "n/m", "iterate_on": "list"}, {"list": [{"n/m": "1"}]}, {"list": [{"n/m": 1}]}),
        ({"key": "n", "iterate_on": "list"}, {"n": "1"}, {"n": "1"}),
    ],
)
def test_keys_and_elements_are_converted(options: Fields, fields: Fields, expected: Fields) -> None:
    """A null conversion value is deleted; in list elements, a key is a plain name."""
    assert done("convert_type", options, fields)[:2] == (expected, "")


def test_a_failed_key_does_not_stop_the_next() -> None:
    """The other keys are converted."""
    result = done("convert_type", {"keys": ["a", "b"], "tags_on_failure": ["t"]}, {"a": "x", "b": "1"})
    assert result[:2] == ({"a": "x", "b": 1}, "a: 'x' is not an integer of 32 bits")
    assert result.event.tags == {"t"}


def test_a_failed_element_is_reported_without_tags() -> None:
    """As in Data Prepper, tags are added only if the value is not a list of objects."""
    options: Fields = {"key": "n", "iterate_on": "list", "tags_on_failure": ["t"]}
    result = done("convert_type", options, {"list": [{"n": "x"}, {"n": "1"}]})
    assert result[:2] == ({"list": [{"n": "x"}, {"n": 1}]}, "n: 'x' is not an integer of 32 bits")
    assert result.event.tags == set()
    for other in ("text", [{"n": "1"}, 2]):
        result = done("convert_type", options, {"list": other})
        assert result.fields == {"list": other}
        assert result.event.tags == {"t"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("True", True),
        ("false", False),
        ("12", 12),
        ("-12", -12),
        ("+7", 7),
        ("2147483648", 2147483648),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("hello", "hello"),
        ("12abc", "12abc"),
        ("v1.2", "v1.2"),
        ("", ""),
        ("a:b", "a:b"),
        ("2024-02-29T12:30:01.250+02:00", 1709202601250),
        ("2024-02-29T10:30:01.250999Z", 1709202601250),
        ("29/Feb/2024:10:30:01 +0000", 1709202601000),
        ("2024-13-29T10:30:01.250Z", "2024-13-29T10:30:01.250Z"),
        (5, 5),
        (None, None),
        ({"a": "1", "b": {"c": "true"}}, {"a": 1, "b": {"c": True}}),
        (["1", {"a": "2"}, "x", "3"], [1, {"a": 2}, "x", 3]),
        # As in Data Prepper, a malformed number ends the coercion of the list.
        (["1", "hello", "3"], [1, "hello", "3"]),
        ([["1"], "2"], [[1], 2]),
    ],
)
@pytest.mark.parametrize("options", [None, {}])
def test_coerced_strings(given: object, expected: object, options: Fields | None) -> None:
    """Strings that look like booleans, numbers or times are converted at any depth."""
    result = done("convert_type", {"coerce_strings": options}, {"k": given, "größe": "1"})
    assert result[:2] == ({"k": expected, "größe": "1"}, "")
    assert type(result.fields["k"]) is type(expected)


def test_a_converted_value_is_not_coerced_again() -> None:
    """A second processor reads the result of the first."""
    event = done("convert_type", {"key": "a"}, {"a": "1", "b": "2"}).event
    assert compiled("convert_type", {"coerce_strings": None})(event)
    assert event.to_json() == b'{"a":1,"b":2}'


def test_a_time_without_a_year_gets_the_current_year() -> None:
    """RFC 3164 timestamps have no year."""
    expected = datetime(datetime.now(UTC).year, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = done("convert_type", {"coerce_strings": None}, {"t": "Jan 2 03:04:05"}).fields["t"]
    assert found == expected.timestamp() * 1000


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("yyyy-MM-dd HH:mm", "2024-05-06 07:08", datetime(2024, 5, 6, 7, 8, tzinfo=UTC)),
        ("d MMMM yy, h:mm a", "6 May 24, 12:08 AM", datetime(2024, 5, 6, 0, 8, tzinfo=UTC)),
        ("d MMMM yy, h:mm a", "6 May 24, 1:08 PM", datetime(2024, 5, 6, 13, 8, tzinfo=UTC)),
        ("EEE dd MMM uuuu kk:mm:ss XX", "Mon 06 May 2024 24:08:09 -0130", datetime(2024, 5, 6, 1, 38, 9, tzinfo=UTC)),
        ("yyyy-MM-dd'T'HH:mm[:ss]X", "2024-02-31T07:08+02", datetime(2024, 2, 29, 5, 8, tzinfo=UTC)),
        ("yyyy-MM-dd 'o''clock' HH:mm", "2024-05-06 o'clock 07:08", datetime(2024, 5, 6, 7, 8, tzinfo=UTC)),
    ],
)
def test_time_formats(pattern: str, text: str, expected: datetime) -> None:
    """Patterns follow Java; a day past the end of the month becomes its last day."""
    options: Fields = {"coerce_strings": {"time_formats": ["HH:mm:ss.SSSSSSSSS", pattern]}}
    assert done("convert_type", options, {"t": text}).fields == {"t": expected.timestamp() * 1000}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "write key, keys or coerce_strings"),
        ({"key": "a", "keys": ["b"]}, "both key and keys are set; remove one"),
        ({"key": "ä"}, "key: 'ä' is not a valid key"),
        ({"keys": ["a", "ä"]}, "keys[1]: 'ä' is not a valid key"),
        ({"key": "a", "iterate_on": ""}, "iterate_on is empty"),
        ({"key": "a", "convert_when": "/a =="}, "convert_when: "),
        ({"coerce_strings": {"time_format": []}}, "coerce_strings: "),
        ({"coerce_strings": {"time_formats": ["HH:mm", "HH:mm VV"]}}, "coerce_strings.time_formats[1]: 'VV'"),
        ({"coerce_strings": {"time_formats": ["HH:mm HH"]}}, "coerce_strings.time_formats[0]: "),
    ],
)
def test_invalid_options_are_rejected(options: Fields, part: str) -> None:
    """The error is raised at compile time and names the option."""
    refused("convert_type", options, part)
