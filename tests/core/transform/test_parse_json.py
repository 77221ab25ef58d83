"""parse_json parses as Data Prepper's does (AbstractParseProcessor and ParseJsonProcessor, 2.17)."""

from __future__ import annotations

import json

import pytest

from tests.core.transform.processor_runs import Fields, done, refused

NESTED = '{"a":1,"b":{"c":{"d":[{"e":1}]}}}'


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ({}, {"message": '{"a":1,"b":{"c":[1]}}'}, {"a": 1, "b": {"c": [1]}}),
        ({}, {"message": ' {"a":1} and more', "a": 0}, {"a": 1}),
        ({}, {"message": '{"message":"new"}'}, {"message": "new"}),
        ({}, {"message": '{"x/y":1}'}, {"x": {"y": 1}}),
        ({}, {"other": 1}, {}),
        ({}, {"message": None}, {}),
        ({"overwrite_if_destination_exists": False}, {"message": '{"a":1,"b":2}', "a": 0}, {"a": 0, "b": 2}),
        ({"source": "in/0"}, {"in": ['{"a":1}']}, {"a": 1}),
        ({"destination": "out/x"}, {"message": '{"a":1}'}, {"out": {"x": {"a": 1}}}),
        ({"destination": "message"}, {"message": '{"a":1}'}, {"message": {"a": 1}}),
        (
            {"destination": "out", "overwrite_if_destination_exists": False},
            {"message": '{"a":1}', "out": None},
            {"out": None},
        ),
        ({"parse_when": "/n == 1"}, {"message": '{"a":1}', "n": 2}, {}),
        ({"parse_when": "/n == 1"}, {"message": '{"a":1}', "n": 1}, {"a": 1}),
        ({"depth": 1}, {"message": NESTED}, {"a": 1, "b": '{"c":{"d":[{"e":1}]}}'}),
        ({"depth": 2}, {"message": NESTED}, {"a": 1, "b": {"c": '{"d":[{"e":1}]}'}}),
        ({"depth": 3}, {"message": NESTED}, {"a": 1, "b": {"c": {"d": [{"e": 1}]}}}),
        ({"pointer": "b/c"}, {"message": NESTED}, {"c": {"d": [{"e": 1}]}}),
        ({"pointer": "/b/c/d/0/"}, {"message": NESTED}, {"d.0": {"e": 1}}),
        ({"pointer": "/b/c/", "other": 1}, {"message": NESTED, "c": 0}, {"c": 0, "b.c": {"d": [{"e": 1}]}}),
        ({"pointer": "/b/c", "destination": "out"}, {"message": NESTED, "c": 0}, {"out": {"c": {"d": [{"e": 1}]}}}),
        ({"pointer": "b/absent"}, {"message": '{"b":1}'}, {"b": 1}),
        (
            {"normalize_keys": True},
            {"message": '{"key^2":1,"a b":2,"a b#":3,"o":{"key%5":[{"k&":1}]}}'},
            {"key_2": 1, "a b": 2, "a_b_": 3, "o": {"key_5": [{"k&": 1}]}},
        ),
        ({"normalize_keys": True, "destination": "o"}, {"message": '{"k&":{"k%":1}}'}, {"o": {"k_": {"k_": 1}}}),
        ({"destination": "o"}, {"message": '{"k&":{"k%":1}}'}, {"o": {"k&": {"k%": 1}}}),
    ],
)
def test_parse(options: Fields, fields: Fields, expected: Fields) -> None:
    """Parsed members are added to the top level of the event or to the destination; the source is kept."""
    options = {name: value for name, value in options.items() if name != "other"}
    assert done("parse_json", options, fields)[:2] == (fields | expected, "")


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ({}, {"message": '{"a":1}'}, {"a": 1}),
        ({}, {"message": '{"message":"hi","a":1}'}, {"message": "hi", "a": 1}),
        ({"destination": "out"}, {"message": '{"a":1}'}, {"out": {"a": 1}}),
        ({}, {"message": "no json"}, {"message": "no json"}),
    ],
)
def test_delete_source(options: Fields, fields: Fields, expected: Fields) -> None:
    """The source is deleted only if it was parsed; a parsed member of the same name is kept."""
    assert done("parse_json", options | {"delete_source": True}, fields).fields == expected


def test_numbers_keep_their_text() -> None:
    """Parsed numbers are written with their original text."""
    event = done("parse_json", {"delete_source": True}, {"message": '{"v":[1.10,4e-7]}'}).event
    assert event.to_json() == b'{"v":[1.10,4e-7]}'


@pytest.mark.parametrize(
    "message",
    ["", "no json", "[1]", "1", 5, True, '{"a":01}', '{"a":NaN}', '{"a":1', '{"a":' * 5000 + "1" + "}" * 5000],
)
def test_an_event_without_a_json_object_is_tagged(message: object) -> None:
    """The event passes with the tags; the failure is reported unless it is silenced."""
    for silently in ("", "_silently"):
        options: Fields = {"tags_on_failure": ["bad", "json"], "handle_failed_events": f"skip{silently}"}
        result = done("parse_json", options, {"message": message})
        assert result.event.to_json().decode() == json.dumps({"message": message}, separators=(",", ":"))
        assert result.event.tags == {"bad", "json"}
        assert result.passed
        assert result.failure.startswith("message: ") is not bool(silently)


@pytest.mark.parametrize(
    ("options", "fields", "failure"),
    [
        ({}, {"message": {"a": 1}}, "/message is an object, not a string"),
        ({}, {"message": [1]}, "/message is an array, not a string"),
        ({}, {"message": '{"ü":1}'}, "'ü' is not a valid key at the top level of an event; set normalize_keys: true"),
        ({}, {"message": '{"":1}'}, "'' is not a valid key at the top level of an event; set normalize_keys: true"),
        ({"destination": "n/x"}, {"message": "{}", "n": 1}, "n is not an object, so it cannot contain a key"),
    ],
)
def test_other_failures_are_not_tagged(options: Fields, fields: Fields, failure: str) -> None:
    """As in Data Prepper, only strings that cannot be parsed add tags."""
    result = done("parse_json", options | {"tags_on_failure": ["bad"]}, fields)
    assert (result.fields, result.failure, result.event.tags) == (fields, failure, set())


def test_a_pointer_without_a_source_fails() -> None:
    """Without a pointer, an event that has no source value is ignored."""
    result = done("parse_json", {"pointer": "a", "tags_on_failure": ["bad"]}, {})
    assert (result.failure, result.event.tags) == ("message: the event has no value at this key", {"bad"})


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"source": ""}, "source is empty"),
        ({"destination": "/"}, "destination is not a valid key; remove it"),
        ({"destination": "  "}, "destination is not a valid key; remove it"),
        ({"destination": "ü"}, "destination: 'ü' is not a valid key"),
        ({"pointer": "/"}, "pointer is empty"),
        ({"pointer": "/ü"}, "pointer: 'ü' is not a valid key"),
        ({"parse_when": "/a =="}, "parse_when: "),
    ],
)
def test_invalid_options_are_rejected(options: Fields, part: str) -> None:
    """The error is raised at compile time and names the option."""
    refused("parse_json", options, part)
