"""The copy_values processor: copies values without decoding them; later changes of the source do not affect copies.

Source: Data Prepper's CopyValueProcessor (2.17).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import MISSING, Event, EventError, Key, frozen
from opensearch_batch.core.transform.processors import base


class CopyEntry(Options, frozen=True, kw_only=True):
    """Copies one value; with `from_list`, the keys are member names of the list elements."""

    from_key: base.Name
    to_key: base.Name
    overwrite_if_to_key_exists: bool = False
    copy_when: str | None = None


class CopyValues(base.ProcessorOptions, frozen=True, kw_only=True):
    """Copies values to other keys, or members of a list's elements to a new list."""

    entries: Annotated[list[CopyEntry], Meta(min_length=1)]
    from_list: str | None = None
    to_list: str | None = None
    overwrite_if_to_list_exists: bool = False

    def compile(self) -> base.Processor:
        if (self.from_list is None) != (self.to_list is None):
            raise ConfigError("from_list and to_list must be used together; write both or neither")
        if self.from_list is not None and self.to_list is not None:
            return base.stop_on_failure([self._between_lists(self.from_list, self.to_list)])
        return base.stop_on_failure(
            [
                base.guarded(f"entries[{index}].copy_when", entry.copy_when, _copy(f"entries[{index}]", entry))
                for index, entry in enumerate(self.entries)
            ]
        )

    def reads(self) -> set[Key]:
        sources = [entry.from_key for entry in self.entries] if self.from_list is None else [self.from_list]
        return base.keys_read(sources, *(entry.copy_when for entry in self.entries))

    def adds(self) -> set[Key]:
        return base.keys_named([entry.to_key for entry in self.entries] if self.to_list is None else [self.to_list])

    def _between_lists(self, from_list: str, to_list: str) -> base.Step:
        source, target = base.source_key("from_list", from_list), base.target_key("to_list", to_list)
        overwrite = self.overwrite_if_to_list_exists
        conditions = [
            (entry, base.condition_of(f"entries[{index}].copy_when", entry.copy_when))
            for index, entry in enumerate(self.entries)
        ]

        def copy(event: Event) -> None:
            if event.has(target) and not overwrite:
                return
            elements = base.list_at(event, source, "from_list")
            if elements is None:
                raise EventError(f"from_list: the event has no key {from_list}")
            # Conditions are evaluated on the event, not on the element.
            names = [(entry.from_key, entry.to_key) for entry, holds in conditions if holds(event)]
            objects = [base.object_of(element, "from_list") for element in elements]
            event.put(
                target, [{to: frozen(element[name]) for name, to in names if name in element} for element in objects]
            )

        return copy


def _copy(location: str, entry: CopyEntry) -> base.Step:
    """Return a step that copies the value of one entry."""
    source = base.source_key(f"{location}.from_key", entry.from_key)
    target = base.target_key(f"{location}.to_key", entry.to_key)
    overwrite = entry.overwrite_if_to_key_exists
    if len(source) == len(target) == 1:
        return _copy_at_top(source[0], target[0], overwrite=overwrite)

    def copy(event: Event) -> None:
        node = event.find(source)
        if node is not MISSING and (overwrite or not event.has(target)):
            event.put(target, frozen(node))

    return copy


def _copy_at_top(name: str, to: str, *, overwrite: bool) -> base.Step:
    """Return a step that copies between top-level keys, the most frequent case."""

    def copy(event: Event) -> None:
        fields = event.fields
        if name in fields and (overwrite or to not in fields):
            fields[to] = frozen(fields[name])

    return copy
