"""add_entries adds as Data Prepper's does (AddEntryProcessor, 2.17)."""

from __future__ import annotations

import json

import pytest

from tests.core.transform.processor_runs import Fields, compiled, done, refused

ADD: Fields = {"key": "new", "value": 3}
OVER: Fields = {"overwrite_if_key_exists": True}
APPEND: Fields = {"append_if_key_exists": True}


@pytest.mark.parametrize(
    ("entry", "fields", "expected"),
    [
        (ADD, {"a": 1}, {"a": 1, "new": 3}),
        (ADD | {"key": "/a/b"}, {"a": {}}, {"a": {"b": 3}}),
        (ADD | {"value": [None]}, {}, {"new": [None]}),
        (ADD | {"value": None, "format": "${k}"}, {"k": "x"}, {"k": "x", "new": "x"}),
        (ADD | {"value": {"x": ["1", 1.5, True]}}, {}, {"new": {"x": ["1", 1.5, True]}}),
        (ADD, {"new": None}, {"new": None}),
        (ADD | OVER, {"new": 1}, {"new": 3}),
        (ADD | APPEND, {"new": 1}, {"new": [1, 3]}),
        (ADD | APPEND, {"new": None}, {"new": [None, 3]}),
        (ADD | APPEND, {"new": [1, [2]]}, {"new": [1, [2], 3]}),
        (ADD | APPEND | {"value": [{"n": ""}]}, {"new": []}, {"new": [[{"n": ""}]]}),
        (ADD | APPEND, {}, {"new": 3}),
        (ADD | {"key": "${k}-${/n}"}, {"k": "x", "n": 1}, {"k": "x", "n": 1, "x-1": 3}),
        (ADD | {"key": "${length(/k)}x/y"}, {"k": "abc"}, {"k": "abc", "3x": {"y": 3}}),
        (ADD | {"add_when": "/a == 1"}, {"a": 2}, {"a": 2}),
        (ADD | {"add_when": "/a == 1"}, {"a": 1}, {"a": 1, "new": 3}),
        (ADD | {"add_when": '/a + 1 == "x"'}, {"a": "text"}, {"a": "text"}),
    ],
)
def test_add(entry: Fields, fields: Fields, expected: Fields) -> None:
    """An existing key is kept, unless the entry overwrites it or appends to it."""
    assert done("add_entries", {"entries": [entry]}, fields)[:2] == (expected, "")


@pytest.mark.parametrize(
    ("made", "fields", "expected"),
    [
        ({"format": "${/date} ${time}"}, {"date": "d", "time": "t"}, "d t"),
        ({"format": "<${a}>${b}"}, {"a": None}, "<>"),
        ({"format": "constant $1}"}, {}, "constant $1}"),
        (
            {"format": "${n}-${b}-${f}-${l}-${o}"},
            {"n": 1, "b": True, "f": 1e7, "l": [1, None], "o": {"x": "y"}},
            "1-true-1.0E7-[1, null]-{x=y}",
        ),
        ({"value_expression": "length(/a)"}, {"a": "abc"}, 3),
        ({"value_expression": "/a"}, {"a": {"b": [1]}}, {"b": [1]}),
        ({"value_expression": "/absent"}, {}, None),
        ({"value_expression": "/n > 1"}, {"n": 2}, True),
    ],
)
def test_values_are_computed_from_the_event(made: Fields, fields: Fields, expected: object) -> None:
    """A missing key renders as an empty string in a format."""
    assert done("add_entries", {"entries": [{"key": "new"} | made]}, fields)[:2] == (fields | {"new": expected}, "")


@pytest.mark.parametrize(
    ("entry", "fields", "failure"),
    [
        (ADD | {"key": "${k}"}, {}, "the event has no value at 'k'"),
        (ADD | {"key": "${k}"}, {"k": "a|b"}, "'a|b' is not a valid key"),
        ({"key": "new", "value_expression": "/a + 1"}, {"a": "text"}, "entries[0].value_expression: "),
        (ADD | {"key": "a/b"}, {"a": "text"}, "a is not an object"),
        ({"key": "new", "format": "${a}"}, '{"a":1e999}', "a value cannot be read: "),
    ],
)
def test_a_failed_entry_does_not_stop_the_next(entry: Fields, fields: Fields | str, failure: str) -> None:
    """The next entry runs, and the failure is reported."""
    result = done("add_entries", {"entries": [entry, {"key": "next", "value": 1}]}, fields)
    before = set(json.loads(fields) if isinstance(fields, str) else fields)
    assert failure in result.failure
    assert result.event.fields.keys() == before | {"next"}


def test_an_added_value_is_new_for_each_event() -> None:
    """A change of the value in one event does not appear in the next event."""
    add = compiled("add_entries", {"entries": [{"key": "o", "value": {}}, {"key": "o/n", "value": 1}]})
    for _ in range(2):
        event = done("delete_entries", {"with_keys": ["x"]}, {}).event
        add(event)
        assert event.to_json() == b'{"o":{"n":1}}'


@pytest.mark.parametrize(
    ("entry", "before", "after"),
    [
        ({"value": "v"}, {}, {"m": "v"}),
        ({"format": "${/a}!"}, {}, {"m": "x!"}),
        ({"value_expression": "/a"}, {}, {"m": "x"}),
        ({"value": "v"}, {"m": 1}, {"m": 1}),
        ({"value": "v"} | OVER, {"m": 1}, {"m": "v"}),
        ({"value": [2]} | APPEND, {"m": 1}, {"m": [1, [2]]}),
        ({"value": 2} | APPEND, {"m": [1]}, {"m": [1, 2]}),
    ],
)
def test_metadata(entry: Fields, before: Fields, after: Fields) -> None:
    """Metadata is written, and the fields of the event are unchanged."""
    result = done("add_entries", {"entries": [{"metadata_key": "m"} | entry]}, {"a": "x"}, before)
    assert (result.event.metadata, result.fields, result.failure) == (after, {"a": "x"}, "")


IN: Fields = ADD | {"iterate_on": "list"}


@pytest.mark.parametrize(
    ("entry", "fields", "expected"),
    [
        (IN, {"list": [{"a": 1}, {"new": 2}]}, [{"a": 1, "new": 3}, {"new": 2}]),
        (IN | OVER, {"list": [{"new": 2}]}, [{"new": 3}]),
        (IN | APPEND, {"list": [{"new": 2}, {}]}, [{"new": [2, 3]}, {"new": 3}]),
        (IN | {"key": "a/b"}, {"list": [{"a": {}}]}, [{"a": {}, "a/b": 3}]),
        (IN | {"key": "a/b", "flatten_key": False}, {"list": [{"a": {}}]}, [{"a": {"b": 3}}]),
        # As in Data Prepper, the existing key is looked up by its plain name, so a nested one is overwritten.
        (IN | {"key": "a/b", "flatten_key": False}, {"list": [{"a": {"b": 1}}]}, [{"a": {"b": 3}}]),
        (IN | APPEND | {"key": "a", "flatten_key": False}, {"list": [{"a": 1}]}, [{"a": [1, 3]}]),
        (IN | {"key": "${k}"}, {"k": "x", "list": [{"k": "y"}]}, [{"k": "y", "x": 3}]),
        ({"key": "new", "iterate_on": "list", "format": "${k}"}, {"k": "x", "list": [{"k": "y"}, {}]}, ["y", ""]),
        (
            {"key": "new", "iterate_on": "list", "value_expression": "/k", "disable_root_keys": False},
            {"k": "x", "list": [{"k": "y"}, {}]},
            ["x", "x"],
        ),
        (IN | {"add_to_element_when": "/a == 1"}, {"a": 2, "list": [{"a": 1}]}, [{"a": 1}]),
        (IN | {"add_to_element_when": "/a == 1"}, {"a": 1, "list": [{"a": 2}]}, [{"a": 2, "new": 3}]),
        (
            IN | {"add_to_element_when": "/a == 1", "evaluate_when_on_element": True},
            {"a": 2, "list": [{"a": 1}, {"a": 2}]},
            [{"a": 1, "new": 3}, {"a": 2}],
        ),
        (
            IN | {"add_to_element_when": 'getMetadata("m") == 1', "evaluate_when_on_element": True},
            {"list": [{}]},
            [{"new": 3}],
        ),
        (IN, {"list": []}, []),
        (IN, {"list": None}, None),
    ],
)
def test_add_to_elements(entry: Fields, fields: Fields, expected: list[object]) -> None:
    """By default, formats and expressions read the element, and conditions read the event."""
    result = done("add_entries", {"entries": [entry]}, fields, {"m": 1})
    found = result.fields["list"]
    if expected and not isinstance(expected[0], dict):
        found = [element["new"] for element in found]
    assert (found, result.failure) == (expected, "")


@pytest.mark.parametrize("given", [[{"a": 1}, 2], "text", {"a": 1}])
def test_a_list_of_non_objects_is_unchanged(given: object) -> None:
    """No element is changed, and the failure names the option."""
    result = done("add_entries", {"entries": [IN]}, {"list": given})
    assert result.fields == {"list": given}
    assert result.failure.startswith("entries[0].iterate_on: ")


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"value": 1}, "set exactly one of key and metadata_key"),
        (ADD | {"metadata_key": "m"}, "set exactly one of key and metadata_key"),
        ({"key": "new"}, "set exactly one of value, format and value_expression"),
        (ADD | {"format": "x"}, "set exactly one of value, format and value_expression"),
        (
            {"key": "new", "value": None},
            "set exactly one of value, format and value_expression, to a value that is not null",
        ),
        ({"key": "new", "value": None, "format": None}, "set exactly one of value, format and value_expression"),
        (ADD | OVER | APPEND, "are mutually exclusive"),
        ({"metadata_key": "m", "value": 1, "iterate_on": "list"}, "metadata_key and iterate_on are mutually exclusive"),
        (ADD | {"add_to_element_when": "/a"}, "add_to_element_when requires iterate_on"),
        (ADD | {"flatten_key": False}, "flatten_key: false requires iterate_on"),
        (ADD | {"disable_root_keys": False}, "disable_root_keys: false requires iterate_on"),
        (IN | {"evaluate_when_on_element": True}, "evaluate_when_on_element requires add_to_element_when"),
        (ADD | {"key": "ä"}, ".key: 'ä' is not a valid key"),
        (ADD | {"key": "${k"}, ".key: "),
        ({"key": "new", "format": "${k} ${l"}, ".format: "),
        ({"key": "new", "format": '${getMetadata("m")}'}, ".format: "),
        ({"key": "new", "value_expression": "/a =="}, ".value_expression: "),
        (ADD | {"add_when": "/a =="}, ".add_when: "),
        (IN | {"add_to_element_when": "/a =="}, ".add_to_element_when: "),
    ],
)
def test_invalid_options_are_rejected(entry: Fields, part: str) -> None:
    """The error is raised at compile time and names the entry."""
    refused("add_entries", {"entries": [ADD, entry]}, part)
    refused("add_entries", {"entries": [ADD, entry]}, "entries[1]")
