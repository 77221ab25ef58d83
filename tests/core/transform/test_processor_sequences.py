"""A sequence of processors on a lazily decoded event gives the same result as on plain values."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.transform.events.event import Event, EventError
from tests.core.transform.processor_runs import Fields, compiled

ABSENT: Any = object()
Plain = dict[str, Any]


class Failed(Exception):
    """The processor is expected to fail."""


def find(value: Any, key: str) -> Any:
    """Return the value at a key."""
    for name in key.split("/"):
        if isinstance(value, dict):
            value = value.get(name, ABSENT)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return ABSENT
    return value


def put(fields: Plain, key: str, value: Any) -> None:
    """Put a copy of a value at a key; the value may contain the parents of the key."""
    value = copy.deepcopy(value)
    *parents, last = key.split("/")
    for name in parents:
        fields = fields.setdefault(name, {})
        if not isinstance(fields, dict):
            raise Failed
    fields[last] = value


def delete(fields: Plain, key: str) -> None:
    """Delete a member."""
    parent, _, last = key.rpartition("/")
    holder = find(fields, parent) if parent else fields
    if holder is not ABSENT and not isinstance(holder, dict):
        raise Failed
    if holder is not ABSENT:
        holder.pop(last, None)


def copy_values(fields: Plain, options: Fields) -> None:
    """Copy by entries."""
    for entry in options["entries"]:
        value, to = find(fields, entry["from_key"]), entry["to_key"]
        if value is not ABSENT and (entry["overwrite_if_to_key_exists"] or find(fields, to) is ABSENT):
            put(fields, to, value)


def rename_keys(fields: Plain, options: Fields) -> None:
    """Rename by entries."""
    for entry in options["entries"]:
        key, to = entry["from_key"], entry["to_key"]
        value = find(fields, key)
        taken = find(fields, to) is not ABSENT and not entry["overwrite_if_to_key_exists"]
        if value is not ABSENT and key != to and not taken:
            put(fields, to, value)
            delete(fields, key)


def delete_entries(fields: Plain, options: Fields) -> None:
    """Delete keys."""
    for key in options["with_keys"]:
        delete(fields, key)


def add_entries(fields: Plain, options: Fields) -> None:
    """Add by entries, and continue after a failed one."""
    failed = False
    for entry in options["entries"]:
        key, value, before = entry["key"], entry["value"], find(fields, entry["key"])
        try:
            if before is ABSENT or entry["overwrite_if_key_exists"]:
                put(fields, key, value)
            elif entry["append_if_key_exists"]:
                put(fields, key, [*(before if isinstance(before, list) else [before]), value])
        except Failed:
            failed = True
    if failed:
        raise Failed


def select_entries(fields: Plain, options: Fields) -> None:
    """Keep keys."""
    kept = Plain()
    for key in options["include_keys"]:
        value = find(fields, key)
        if value is not ABSENT and value is not None:
            put(kept, key, value)
    fields.clear()
    fields.update(kept)


REFERENCE: dict[str, Callable[[Plain, Fields], None]] = {
    "copy_values": copy_values,
    "rename_keys": rename_keys,
    "delete_entries": delete_entries,
    "add_entries": add_entries,
    "select_entries": select_entries,
}
NAMES = st.sampled_from("abc")
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "text", "größe", '"\\'])
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner) | st.lists(inner, max_size=3), max_leaves=8)
TARGETS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
SOURCES = st.lists(st.sampled_from("abc01"), max_size=2).flatmap(
    lambda rest: NAMES.map(lambda name: "/".join([name, *rest]))
)
MOVES = st.fixed_dictionaries({"from_key": SOURCES, "to_key": TARGETS, "overwrite_if_to_key_exists": st.booleans()})
ADDS = st.builds(
    lambda key, value, mode: {
        "key": key,
        "value": value,
        "overwrite_if_key_exists": mode == "overwrite",
        "append_if_key_exists": mode == "append",
    },
    TARGETS,
    VALUES.filter(lambda value: value is not None),
    st.sampled_from(["keep", "overwrite", "append"]),
)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["copy_values", "rename_keys"]), st.lists(MOVES, min_size=1, max_size=3)),
    st.tuples(st.just("add_entries"), st.lists(ADDS, min_size=1, max_size=3)),
    st.tuples(st.just("delete_entries"), st.lists(SOURCES, min_size=1, max_size=3)),
    st.tuples(st.just("select_entries"), st.lists(TARGETS, min_size=2, max_size=4)),
)
LISTED = {"delete_entries": "with_keys", "select_entries": "include_keys"}


@given(fields=st.dictionaries(NAMES, VALUES), steps=st.lists(STEPS, min_size=1, max_size=6))
def test_processors_match_the_plain_implementation(fields: Plain, steps: list[tuple[str, list[Any]]]) -> None:
    """After a failed processor, the next one continues with the event as it is."""
    event = Event.of(json.dumps(fields).encode())
    for name, configured in steps:
        options = {LISTED.get(name, "entries"): configured}
        expected = succeeded = True
        try:
            REFERENCE[name](fields, options)
        except Failed:
            expected = False
        try:
            compiled(name, options)(event)
        except EventError:
            succeeded = False
        assert (json.loads(event.to_json()), succeeded) == (fields, expected)
