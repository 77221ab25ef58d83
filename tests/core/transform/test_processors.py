"""Processors copy, delete, select, rename and drop as Data Prepper's do (2.17, mutate-event and drop-events)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from opensearch_batch.core.transform.events.event import Event
from opensearch_batch.core.transform.processors import PROCESSORS
from tests.core.transform.processor_runs import Fields, compiled, done, options_of, refused

COPY_TEXT: Fields = {"from_key": "text", "to_key": "chapter"}


def test_the_sample_pipeline_produces_its_document() -> None:
    """The sample's processors on one row of a SageMaker output keep the text of numbers."""
    event = Event.of(b'{"_id":"1","title":"","text":"a text","metadata":{},"SageMakerOutput":[1.10,4e-7]}')
    copies = [COPY_TEXT | {"from_key": "/text"}, {"from_key": "/SageMakerOutput", "to_key": "chapter_embedding"}]
    assert compiled("copy_values", {"entries": copies})(event)
    assert compiled("delete_entries", {"with_keys": ["text", "SageMakerOutput"]})(event)
    assert event.to_json() == (
        b'{"_id":"1","title":"","metadata":{},"chapter":"a text","chapter_embedding":[1.10,4e-7]}'
    )
    assert type(event.fields["chapter_embedding"]) is Raw


@pytest.mark.parametrize(
    ("entry", "fields", "expected"),
    [
        (COPY_TEXT, {"text": "a"}, {"text": "a", "chapter": "a"}),
        (COPY_TEXT, {"other": 1}, {"other": 1}),
        (COPY_TEXT, {"text": None}, {"text": None, "chapter": None}),
        (COPY_TEXT, {"text": "a", "chapter": None}, {"text": "a", "chapter": None}),
        (
            COPY_TEXT | {"overwrite_if_to_key_exists": True},
            {"text": "a", "chapter": "b"},
            {"text": "a", "chapter": "a"},
        ),
        (COPY_TEXT | {"to_key": "/text", "overwrite_if_to_key_exists": True}, {"text": "a"}, {"text": "a"}),
        (COPY_TEXT | {"from_key": "/content/0"}, {"content": ["a", "b"]}, {"content": ["a", "b"], "chapter": "a"}),
        (COPY_TEXT | {"from_key": "content/2"}, {"content": ["a", "b"]}, {"content": ["a", "b"]}),
        (COPY_TEXT | {"to_key": "book/chapter"}, {"text": "a"}, {"text": "a", "book": {"chapter": "a"}}),
        (COPY_TEXT | {"from_key": "a~1b"}, {"a/b": 1, "a": {"b": 2}}, {"a/b": 1, "a": {"b": 2}, "chapter": 1}),
        (COPY_TEXT | {"copy_when": "/n == 1"}, {"text": "a", "n": 1}, {"text": "a", "n": 1, "chapter": "a"}),
        (COPY_TEXT | {"copy_when": "/n == 1"}, {"text": "a", "n": 2}, {"text": "a", "n": 2}),
    ],
)
def test_copy(entry: Fields, fields: Fields, expected: Fields) -> None:
    """A value is copied if it exists and the target is free or may be overwritten."""
    assert done("copy_values", {"entries": [entry]}, fields)[:2] == (expected, "")


def test_outputs_of_two_inputs_are_copied_by_index() -> None:
    """As in the older form of the sample: one embedding per input."""
    entries = [{"from_key": "/SageMakerOutput/1", "to_key": "title_embedding"}]
    row = '{"SageMakerOutput":[[1.0,2],[3.50]]}'
    event = done("copy_values", {"entries": entries}, row).event
    assert event.to_json() == b'{"SageMakerOutput":[[1.0,2],[3.50]],"title_embedding":[3.50]}'


def test_a_copy_is_independent_of_its_source() -> None:
    """A change of one does not affect the other, even if the object was decoded before."""
    event = Event.of(b'{"a":{"b":{"c":1}},"list":[{"n":1}]}')
    assert event.value(("a", "b", "c")) == 1
    assert event.value(("list", "0", "n")) == 1
    compiled("copy_values", {"entries": [{"from_key": "a", "to_key": "x"}, {"from_key": "list", "to_key": "y"}]})(event)
    compiled("delete_entries", {"with_keys": ["a/b/c", "list/0/n"]})(event)
    assert json.loads(event.to_json()) == {"a": {"b": {}}, "list": [{}], "x": {"b": {"c": 1}}, "y": [{"n": 1}]}


LISTS: Fields = {"entries": [{"from_key": "n", "to_key": "m"}], "from_list": "a", "to_list": "b"}


@pytest.mark.parametrize(
    ("options", "fields", "expected", "failure"),
    [
        (LISTS, {"a": [{"n": 1, "o": 2}, {}]}, {"a": [{"n": 1, "o": 2}, {}], "b": [{"m": 1}, {}]}, ""),
        (LISTS, {"a": [{"n": 1}], "b": 0}, {"a": [{"n": 1}], "b": 0}, ""),
        (
            LISTS | {"overwrite_if_to_list_exists": True},
            {"a": [{"n": 1}], "b": 0},
            {"a": [{"n": 1}], "b": [{"m": 1}]},
            "",
        ),
        (
            LISTS | {"entries": [{"from_key": "n", "to_key": "m", "copy_when": "/go == true"}]},
            {"a": [{"n": 1, "go": True}]},
            {"a": [{"n": 1, "go": True}], "b": [{}]},
            "",
        ),
        (LISTS, {"a": [1]}, {"a": [1]}, "from_list: an element of the list is not an object"),
        (LISTS, {"a": "text"}, {"a": "text"}, "from_list: /a is not a list"),
        (LISTS, {}, {}, "from_list: the event has no key a"),
    ],
)
def test_copy_between_lists(options: Fields, fields: Fields, expected: Fields, failure: str) -> None:
    """Names are members of the elements; conditions are evaluated on the event."""
    assert done("copy_values", options, fields)[:2] == (expected, failure)


def test_a_failed_entry_stops_the_copying() -> None:
    """As in Data Prepper, the event passes with the copies made so far, and the failure is reported."""
    entries = [{"from_key": "n", "to_key": to} for to in ("a", "text/b", "c")]
    assert done("copy_values", {"entries": entries}, {"n": 1, "text": "t"})[:2] == (
        {"n": 1, "text": "t", "a": 1},
        "text is not an object, so it cannot contain a key",
    )


ELEMENTS: Fields = {"with_keys": ["n"], "iterate_on": "list"}


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ({"with_keys": ["a", "/b", "absent"]}, {"a": 1, "b": 2, "c": 3}, {"c": 3}),
        ({"with_keys": ["a/b", "x/y"]}, {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
        ({"with_keys": ["list/1/n"]}, {"list": [{"n": 1}, {"n": 1}]}, {"list": [{"n": 1}, {}]}),
        ({"with_keys": ["größe", "a#b"]}, {"größe": 1, "a#b": 2, "c": 3}, {"c": 3}),
        ({"with_keys": ["a"], "delete_when": "/b == 1"}, {"a": 1, "b": 1}, {"b": 1}),
        ({"with_keys": ["a"], "delete_when": "/b == 1"}, {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        ({"with_keys_regex": ["te.t", "n"]}, {"test": 1, "tests": 2, "n": {"test": 3}, "m": 4}, {"tests": 2, "m": 4}),
        (
            {"with_keys_regex": ["t.*"], "exclude_from_delete": ["text"]},
            {"title": 1, "text": 2, "a": {"title": 3}},
            {"text": 2, "a": {"title": 3}},
        ),
        (
            {"entries": [{"with_keys": ["a"], "delete_when": "/b == 1"}, {"with_keys": ["c"]}]},
            {"a": 1, "b": 2, "c": 3},
            {"a": 1, "b": 2},
        ),
        ({"entries": [{"with_keys": ["a"], "with_keys_regex": ["b."]}]}, {"a": 1, "b": 2, "bb": 3}, {"b": 2}),
        (ELEMENTS, {"list": [{"n": 1, "o": 2}, {"o": 3}], "n": 4}, {"list": [{"o": 2}, {"o": 3}], "n": 4}),
        (
            ELEMENTS | {"delete_from_element_when": "/o == 2"},
            {"list": [{"n": 1, "o": 2}, {"n": 1, "o": 3}], "o": 2},
            {"list": [{"o": 2}, {"n": 1, "o": 3}], "o": 2},
        ),
        (ELEMENTS, {"list": None, "n": 1}, {"list": None, "n": 1}),
        (ELEMENTS, {"n": 1}, {"n": 1}),
    ],
)
def test_delete(options: Fields, fields: Fields, expected: Fields) -> None:
    """A missing key is ignored; a regular expression matches whole top-level names."""
    assert done("delete_entries", options, fields)[:2] == (expected, "")


@pytest.mark.parametrize(
    ("options", "fields", "failure"),
    [
        ({"with_keys": ["list/0"]}, {"list": [1]}, "/list/0: only a member of an object can be deleted"),
        (ELEMENTS, {"list": [{"n": 1}, 2]}, "iterate_on: an element of the list is not an object"),
        (ELEMENTS, {"list": {"n": 1}}, "iterate_on: /list is not a list"),
    ],
)
def test_a_failed_deletion_changes_nothing(options: Fields, fields: Fields, failure: str) -> None:
    """The event passes unchanged."""
    assert done("delete_entries", options, fields)[:2] == (fields, failure)


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ({"include_keys": ["a", "absent", "null"]}, {"a": 1, "b": 2, "null": None}, {"a": 1}),
        ({"include_keys": ["a/b", "/c"]}, {"a": {"b": 1, "d": 2}, "c": 3}, {"a": {"b": 1}, "c": 3}),
        ({"include_keys_regex": ["a.", "null"]}, {"a": 1, "ab": 2, "null": None}, {"ab": 2, "null": None}),
        ({"include_keys": ["ab"], "include_keys_regex": ["a."]}, {"ab": None, "ac": None, "b": 1}, {"ac": None}),
        ({"include_keys": ["a"], "select_when": "/b == 2"}, {"a": 1, "b": 3}, {"a": 1, "b": 3}),
        ({"include_keys": ["a"], "select_when": "/b == 3"}, {"a": 1, "b": 3}, {"a": 1}),
    ],
)
def test_select(options: Fields, fields: Fields, expected: Fields) -> None:
    """A null is removed if selected by key, and kept if selected by regular expression."""
    assert done("select_entries", options, fields)[:2] == (expected, "")


def test_an_element_cannot_be_selected_without_its_list() -> None:
    """Data Prepper fails too; here the event is unchanged."""
    assert done("select_entries", {"include_keys": ["b", "a/0"]}, {"a": [1], "b": 2})[:2] == (
        {"a": [1], "b": 2},
        "/a/0: a member of an object cannot be named by a number",
    )


RENAME: Fields = {"from_key": "a", "to_key": "b"}
MATCH: Fields = {"from_key_regex": "a.*", "to_key": "b"}
OVER: Fields = {"overwrite_if_to_key_exists": True}


@pytest.mark.parametrize(
    ("entry", "fields", "expected"),
    [
        (RENAME, {"a": 1}, {"b": 1}),
        (RENAME, {"c": 1}, {"c": 1}),
        (RENAME, {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        (RENAME | OVER, {"a": 1, "b": 2}, {"b": 1}),
        (RENAME | OVER | {"to_key": "/a"}, {"a": 1}, {"a": 1}),
        (RENAME | {"to_key": "b/c"}, {"a": [1]}, {"b": {"c": [1]}}),
        (RENAME | {"from_key": "a/0/n"}, {"a": [{"n": 1}]}, {"a": [{}], "b": 1}),
        (RENAME | OVER | {"from_key": "a/a", "to_key": "a"}, {"a": {"a": {"a": 1, "b": 2}}}, {"a": {"b": 2}}),
        (RENAME | {"rename_when": "/n == 1"}, {"a": 1, "n": 2}, {"a": 1, "n": 2}),
        (MATCH, {"a1": 1, "a2": 2, "ca": 3}, {"b": 1, "a2": 2, "ca": 3}),
        (MATCH | OVER, {"a1": 1, "a2": 2, "b": 3}, {"b": 2}),
        (MATCH, {"a1": 1, "b": 3}, {"a1": 1, "b": 3}),
        (MATCH | OVER | {"to_key": "a1"}, {"a2": 2, "a1": 1}, {"a1": 2}),
    ],
)
def test_rename(entry: Fields, fields: Fields, expected: Fields) -> None:
    """The first match is renamed, or all if they overwrite; a rename to the same name keeps the value."""
    assert done("rename_keys", {"entries": [entry]}, fields)[:2] == (expected, "")


def test_renames_run_in_order() -> None:
    """The second entry reads the result of the first."""
    entries = [RENAME, {"from_key": "b", "to_key": "c"}]
    assert done("rename_keys", {"entries": entries}, {"a": 1}).fields == {"c": 1}


@pytest.mark.parametrize(
    ("transform", "fields", "expected"),
    [
        ("lowercase", {"KeY1": 1, "kEy": {"keY3": {"KEY5": "V"}}}, {"key1": 1, "key": {"key3": {"key5": "V"}}}),
        ("uppercase", {"key": [{"in": 1}], "ß": 2, "a/b": 3}, {"KEY": [{"in": 1}], "ß": 2, "a/b": 3}),
        ("capitalize", {"key one": {"two": 1}}, {"Key one": {"Two": 1}}),
        ("lowercase", {"A": 1, "a": 2}, {"a": 1}),
        ("lowercase", {"a": 1, "A": 2}, {"a": 2}),
    ],
)
def test_transform_key(transform: str, fields: Fields, expected: Fields) -> None:
    """Names in nested objects change; names in lists and names that are not valid keys are kept."""
    assert done("rename_keys", {"transform_key": transform}, fields).fields == expected


@pytest.mark.parametrize(
    ("options", "fields", "passed", "failure"),
    [
        ({"drop_when": "/a == 1"}, {"a": 1}, False, ""),
        ({"drop_when": "/a == 1"}, {"a": 2}, True, ""),
        ({"drop_when": "true"}, {}, False, ""),
        ({"drop_when": "/a + 1 == 2"}, {"a": "text"}, True, ""),
        ({"drop_when": "/a"}, {"a": "text"}, True, "drop_when must return a boolean, not str"),
        ({"drop_when": "/a", "handle_failed_events": "skip_silently"}, {"a": "text"}, True, ""),
        ({"drop_when": "/a", "handle_failed_events": "drop"}, {"a": "text"}, False, ""),
    ],
)
def test_drop(options: Fields, fields: Fields, passed: bool, failure: str) -> None:  # noqa: FBT001 - a column of the table
    """Only true drops an event, unless handle_failed_events drops other results."""
    result = done("drop_events", options, fields)
    assert (result.passed, result.failure) == (passed, failure)


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("copy_values", {"entries": [COPY_TEXT], "from_list": "a"}, "from_list and to_list must be used together"),
        ("copy_values", {"entries": [COPY_TEXT | {"to_key": "0"}]}, "entries[0].to_key: '0' starts with a number"),
        (
            "copy_values",
            {"entries": [COPY_TEXT, COPY_TEXT | {"from_key": "ü"}]},
            "entries[1].from_key: 'ü' is not a valid key",
        ),
        ("copy_values", {"entries": [COPY_TEXT | {"copy_when": "/a =="}]}, "entries[0].copy_when: "),
        ("delete_entries", {}, "set exactly one of with_keys, with_keys_regex and entries"),
        ("delete_entries", {"with_keys": ["a"], "entries": [{"with_keys": ["b"]}]}, "set exactly one of with_keys"),
        ("delete_entries", {"with_keys": []}, "with_keys is empty"),
        ("delete_entries", {"entries": [{}]}, "entries[0].with_keys is empty"),
        ("delete_entries", {"with_keys_regex": ["a", "("]}, "with_keys_regex[1]: "),
        ("delete_entries", {"with_keys": ["a"], "exclude_from_delete": ["b"]}, "requires with_keys_regex"),
        ("delete_entries", {"with_keys": ["a"], "delete_from_element_when": "/a"}, "requires iterate_on"),
        ("select_entries", {"include_keys": []}, "include_keys or include_keys_regex is required"),
        ("select_entries", {"include_keys": ["a", ""]}, "include_keys[1] is empty"),
        ("rename_keys", {}, "set exactly one of entries and transform_key"),
        (
            "rename_keys",
            {"entries": [RENAME], "transform_key": "uppercase"},
            "set exactly one of entries and transform_key",
        ),
        ("rename_keys", {"entries": [RENAME | MATCH]}, "set exactly one of entries[0].from_key and"),
        ("rename_keys", {"entries": [{"to_key": "a"}]}, "set exactly one of entries[0].from_key and"),
        ("drop_events", {"drop_when": "/a =="}, "drop_when: "),
    ],
)
def test_invalid_options_are_rejected(name: str, options: Fields, part: str) -> None:
    """The error is raised at compile time and names the option."""
    refused(name, options, part)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "copy_values",
            {"entries": [{"from_key": "/a/0", "to_key": "b", "copy_when": "/c == 1"}]},
            ({("a", "0"), ("c",)}, {("b",)}),
        ),
        ("copy_values", LISTS, ({("a",)}, {("b",)})),
        (
            "delete_entries",
            {"entries": [{"with_keys": ["a/b"], "delete_when": "/c"}, ELEMENTS]},
            ({("c",), ("list",)}, set()),
        ),
        ("select_entries", {"include_keys": ["a"], "select_when": "/b"}, ({("a",), ("b",)}, set())),
        ("rename_keys", {"entries": [RENAME, MATCH]}, ({("a",)}, {("b",)})),
        ("drop_events", {"drop_when": "/a/b == 1"}, ({("a", "b")}, set())),
        ("convert_type", {"keys": ["a", "b"], "convert_when": "/c"}, ({("a",), ("b",), ("c",)}, set())),
        ("convert_type", {"key": "a", "iterate_on": "list"}, ({("list",)}, set())),
        (
            "parse_json",
            {"destination": "d", "delete_source": True, "parse_when": "/c"},
            ({("message",), ("c",)}, {("d",)}),
        ),
        ("parse_json", {"source": "/a/0"}, ({("a", "0")}, set())),
        (
            "add_entries",
            {"entries": [{"key": "n", "iterate_on": "l", "value_expression": "/a", "add_to_element_when": "/b == 1"}]},
            ({("l",), ("b",)}, set()),
        ),
        (
            "add_entries",
            {
                "entries": [
                    {
                        "key": "n",
                        "iterate_on": "l",
                        "format": "${a}",
                        "disable_root_keys": False,
                        "add_to_element_when": "/b == 1",
                        "evaluate_when_on_element": True,
                    }
                ]
            },
            ({("l",), ("a",)}, set()),
        ),
        (
            "add_entries",
            {"entries": [{"key": "${/k}", "format": "${a}-${/b/c}"}, {"key": "n", "value_expression": "/d + 1"}]},
            ({("k",), ("a",), ("b", "c"), ("d",)}, {("n",)}),
        ),
    ],
)
def test_keys_are_known_without_an_event(name: str, options: Fields, expected: tuple[Any, Any]) -> None:
    """The keys that a processor reads and adds can be checked against the rest of the pipeline."""
    known = options_of(name, options)
    assert (known.reads(), known.adds()) == expected


def test_the_former_name_is_supported() -> None:
    """convert_entry_type is the same processor as convert_type."""
    assert PROCESSORS["convert_entry_type"] is PROCESSORS["convert_type"]
