"""The rename_keys processor: renames keys without decoding their values; overwriting existing keys is optional.

Source: Data Prepper's RenameKeyProcessor and TransformOption (2.17). Difference: in Data Prepper, an entry with
the same key as source and target deletes the key if it may overwrite keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import MISSING, Event, Key, Node, frozen, key_or_none, members_of
from opensearch_batch.core.transform.processors import base

Transform = Literal["none", "lowercase", "uppercase", "capitalize", ""]
_CHANGES: Mapping[Transform, Callable[[str], str]] = {
    "lowercase": str.lower,
    "uppercase": str.upper,
    "capitalize": lambda name: name[:1].upper() + name[1:],
}


class RenameEntry(Options, frozen=True, kw_only=True):
    """Renames one key, or the top-level keys whose whole name matches a regular expression."""

    to_key: str
    from_key: str | None = None
    from_key_regex: str | None = None
    overwrite_if_to_key_exists: bool = False
    rename_when: str | None = None


class RenameKeys(base.ProcessorOptions, frozen=True, kw_only=True):
    """Renames keys as configured in `entries`, or changes the case of all keys."""

    entries: list[RenameEntry] | None = None
    transform_key: Transform = "none"

    def compile(self) -> base.Processor:
        change, entries = _CHANGES.get(self.transform_key), self.entries or ()
        if (change is None) == (self.entries is None):
            raise ConfigError("set exactly one of entries and transform_key")
        if change is not None:
            return base.stop_on_failure([lambda event: _rename_all(event.fields, change)])
        return base.stop_on_failure([_step(f"entries[{index}].", entry) for index, entry in enumerate(entries)])

    def reads(self) -> set[Key]:
        entries = self.entries or ()
        return base.keys_read((entry.from_key for entry in entries), *(entry.rename_when for entry in entries))

    def adds(self) -> set[Key]:
        return base.keys_named(entry.to_key for entry in self.entries or ())


def _step(location: str, entry: RenameEntry) -> base.Step:
    target, overwrite = base.target_key(f"{location}to_key", entry.to_key), entry.overwrite_if_to_key_exists
    if entry.from_key is not None and entry.from_key_regex is None:
        step = _rename(base.source_key(f"{location}from_key", entry.from_key), target, overwrite=overwrite)
    elif entry.from_key_regex is not None and entry.from_key is None:
        pattern = base.pattern_of(f"{location}from_key_regex", entry.from_key_regex)
        step = _rename_matches(pattern, target, overwrite=overwrite)
    else:
        raise ConfigError(f"set exactly one of {location}from_key and {location}from_key_regex")
    return base.guarded(f"{location}rename_when", entry.rename_when, step)


def _rename(source: Key, target: Key, *, overwrite: bool) -> base.Step:
    def rename(event: Event) -> None:
        node = event.find(source)
        if node is MISSING or source == target or (event.has(target) and not overwrite):
            return
        # The value is copied before the deletion, because one key may be inside the other.
        event.put(target, frozen(node))
        event.delete(source)

    return rename


def _rename_matches(pattern: re.Pattern[str], target: Key, *, overwrite: bool) -> base.Step:
    """Return a step that renames the first matching key, or with `overwrite` every match; the last value remains."""

    def rename(event: Event) -> None:
        if event.has(target) and not overwrite:
            return
        matches = [name for name in event.fields if pattern.fullmatch(name) and (name,) != target]
        nodes = {name: frozen(event.fields[name]) for name in (matches if overwrite else matches[:1])}
        for name, node in nodes.items():
            event.put(target, node)
            event.fields.pop(name, None)

    return rename


def _rename_all(members: dict[str, Node], change: Callable[[str], str]) -> None:
    """Rename the members of an object and of nested objects; lists and invalid keys remain unchanged."""
    for name in list(members):
        inner = members_of(members[name])
        if inner is not None:
            _rename_all(inner, change)
            members[name] = inner
        if key_or_none(name) == (name,):
            members[change(name)] = members.pop(name)
