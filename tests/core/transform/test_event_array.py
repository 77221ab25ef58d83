"""A long array that is passed by is the one that was there, wherever processors put it; anything odd is read whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.transform.events.event import PLACEHOLDER, Event, key_of, value_of

VECTOR = [n / 1000 for n in range(1, 200)]
TEXT = json.dumps(VECTOR)
names = st.sampled_from(["v", "w", "text", 'a"b', "x:[", "ü", "\\", ""])
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20), st.just(f'":{TEXT}'))
values = st.recursive(
    st.one_of(scalars, st.just(VECTOR)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(names, values, max_size=5), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_an_event_is_the_same_whether_its_array_was_passed_by_or_read(
    row: dict[str, Any], separators: tuple[str, str]
) -> None:
    """Whatever stands around the array, before or behind it, nested or in texts."""
    for ascii_only in (True, False):
        text = json.dumps(row, separators=separators, ensure_ascii=ascii_only).encode()
        event = Event.with_unparsed_array(text)
        assert json.loads(event.to_json()) == row
        assert event.value(()) == row
        for name, value in row.items():
            assert Event.with_unparsed_array(text).value((name,)) == value


def test_the_array_is_passed_by_where_it_can_be() -> None:
    """In a row as SageMaker writes it, with texts and an object before it."""
    for space in ("", " "):
        row = f'{{"_id":"1","metadata":{{"a":1}},"v":{space}{TEXT},"w":2}}'.encode()
        event = Event.with_unparsed_array(row)
        assert event.array is not None
        assert json.loads(event.to_json()) == json.loads(row)


@pytest.mark.parametrize(
    ("key", "to"), [("v", "w"), ("v", "a/b"), ("v/3", "w")], ids=["to the top", "into an object", "an element"]
)
def test_what_is_copied_of_it_is_what_was_there(key: str, to: str) -> None:
    """A copy is the array, or what stands in it, and both are written."""
    event = Event.with_unparsed_array(f'{{"v":{TEXT}}}'.encode())
    node = event.fields["v"] if key == "v" else event.find(key_of(key))
    event.put(key_of(to), node)
    expected = VECTOR if key == "v" else VECTOR[3]
    assert event.value(key_of(to)) == expected
    document = json.loads(event.to_json())
    assert document["v"] == VECTOR
    assert value_of(Event.of(event.to_json()).find(key_of(to))) == expected


def test_an_array_that_is_deleted_is_gone() -> None:
    """Nothing of it is written, and nothing stands in for it."""
    event = Event.with_unparsed_array(f'{{"v":{TEXT},"n":1}}'.encode())
    event.delete(("v",))
    assert event.to_json() == b'{"n":1}'


def test_a_condition_sees_that_something_is_there() -> None:
    """An array is not null, though nobody reads it."""
    event = Event.with_unparsed_array(f'{{"v":{TEXT}}}'.encode())
    assert not event.is_null(("v",))
    assert event.array is not None
    assert event.has(("v",))


REFUSED = r"^not (UTF-8|JSON|a JSON object)|^the row is JSON, but not an object"


@pytest.mark.parametrize(
    "row",
    [
        f'{{"v":{TEXT}',
        f'{{"v":{TEXT}}}}}',
        f'["v",{TEXT}]',
        f'{{"v":{TEXT} "w":1}}',
        f'{{"v":[{TEXT}}}',
        f'{{"v":{TEXT},"v2":"\udcff"}}',
    ],
)
def test_a_row_that_is_no_object_is_refused_as_ever(row: str) -> None:
    """What stands around the array is read as strictly as any row."""
    content = row.encode("utf-8", "surrogateescape")
    with pytest.raises(RecordRejected, match=REFUSED):
        Event.of(content)
    with pytest.raises(RecordRejected, match=REFUSED):
        Event.with_unparsed_array(content)


def test_a_row_with_the_very_text_that_stands_in_is_read_right() -> None:
    """Its own number is no array."""
    row = f'{{"x":{{"v":{TEXT}}},"v":{PLACEHOLDER.decode()},"w":1}}'.encode()
    assert Event.of(row).value(("w",)) == Event.with_unparsed_array(row).value(("w",)) == 1


@pytest.mark.parametrize("number", ["-0.00e-00", "-0", "-0.000000000000000000e-00"])
def test_a_number_is_never_taken_for_the_array(number: str) -> None:
    """Members that hold odd zeros keep them, and texts with them too."""
    event = Event.with_unparsed_array(f'{{"a":{number},"v":{TEXT},"b":"{number}"}}'.encode())
    assert event.array is not None
    assert event.to_json() == f'{{"a":{number},"v":{TEXT},"b":"{number}"}}'.encode()
