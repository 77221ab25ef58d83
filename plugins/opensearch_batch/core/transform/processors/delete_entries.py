"""The delete_entries processor: deletes keys, and top-level keys whose whole name matches a regular expression.

Source: Data Prepper's DeleteEntryProcessor and DeleteEntryProcessorConfig (2.17).
"""

from __future__ import annotations

from collections.abc import Sequence

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Event, Key, Node, key_of
from opensearch_batch.core.transform.processors import base


class DeleteEntry(Options, frozen=True, kw_only=True):
    """The keys to delete, and the condition; with `iterate_on`, the keys are deleted from each element of a list."""

    with_keys: list[base.Name] | None = None
    with_keys_regex: list[str] | None = None
    exclude_from_delete: list[str] | None = None
    delete_when: str | None = None
    iterate_on: str | None = None
    delete_from_element_when: str | None = None


class DeleteEntries(base.ProcessorOptions, DeleteEntry, frozen=True, kw_only=True):
    """Deletes keys of an event. The keys are configured directly or in `entries`."""

    entries: list[DeleteEntry] | None = None

    def compile(self) -> base.Processor:
        if sum(form is not None for form in (self.with_keys, self.with_keys_regex, self.entries)) != 1:
            raise ConfigError("set exactly one of with_keys, with_keys_regex and entries")
        if self.entries is None:
            return base.stop_on_failure([_step("", self)])
        # As in Data Prepper, `entries` overrides the other options, but the condition must be valid.
        base.condition_of("delete_when", self.delete_when)
        return base.stop_on_failure([_step(f"entries[{index}].", entry) for index, entry in enumerate(self.entries)])

    def reads(self) -> set[Key]:
        parts: Sequence[DeleteEntry] = [self] if self.entries is None else self.entries
        return base.keys_read((part.iterate_on for part in parts), *(part.delete_when for part in parts))


def _step(location: str, entry: DeleteEntry) -> base.Step:
    if not entry.with_keys and not entry.with_keys_regex:
        raise ConfigError(f"{location}with_keys is empty; write the keys to delete, or with_keys_regex")
    if entry.exclude_from_delete and not entry.with_keys_regex:
        raise ConfigError(f"{location}exclude_from_delete requires with_keys_regex; add it, or remove the option")
    if entry.delete_from_element_when is not None and entry.iterate_on is None:
        raise ConfigError(f"{location}delete_from_element_when requires iterate_on; add it, or use delete_when")
    delete = _delete(location, entry)
    if entry.iterate_on is not None:
        delete = _in_elements(location, entry, entry.iterate_on, delete)
    return base.guarded(f"{location}delete_when", entry.delete_when, delete)


def _delete(location: str, entry: DeleteEntry) -> base.Step:
    """Return a step that deletes keys, and top-level keys that match a pattern; missing keys are ignored."""
    # As in Data Prepper, keys to delete may contain characters that are invalid in other keys.
    keys = [key_of(text, any_name=True) for text in entry.with_keys or ()]
    patterns = base.patterns_of(f"{location}with_keys_regex", entry.with_keys_regex or ())
    kept = frozenset(entry.exclude_from_delete or ())
    names = [key[0] for key in keys if len(key) == 1]

    def delete_names(event: Event) -> None:
        fields = event.fields
        for name in names:
            fields.pop(name, None)

    def delete_keys(event: Event) -> None:
        for key in keys:
            event.delete(key)

    delete = delete_names if len(names) == len(keys) else delete_keys
    if not patterns:
        return delete

    def delete_matches(event: Event) -> None:
        delete(event)
        fields = event.fields
        for name in list(fields):
            if name not in kept and any(pattern.fullmatch(name) for pattern in patterns):
                del fields[name]

    return delete_matches


def _in_elements(location: str, entry: DeleteEntry, iterate_on: str, delete: base.Step) -> base.Step:
    key, option = base.target_key(f"{location}iterate_on", iterate_on), f"{location}iterate_on"
    holds = base.condition_of(f"{location}delete_from_element_when", entry.delete_from_element_when)

    def changed(element: Node, event: Event) -> Node:
        inner = event.within(base.object_of(element, option))
        if holds(inner):
            delete(inner)
            return inner.fields
        return element

    def process(event: Event) -> None:
        elements = base.list_at(event, key, option)
        if elements is not None:
            event.put(key, [changed(element, event) for element in elements])

    return process
