"""What is not selected is gone, and so is what is selected by its key but null.

Source: Data Prepper's SelectEntriesProcessor (2.17).
"""

from __future__ import annotations

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Event, Key
from opensearch_batch.core.transform.processors.base import (
    Processor,
    ProcessorOptions,
    condition_keys,
    guarded,
    in_turn,
    keys_named,
    patterns_of,
    target_key,
)


class SelectEntries(ProcessorOptions, frozen=True, kw_only=True):
    """Keeps the named keys and the members whose whole name matches; all else is removed."""

    include_keys: list[str] | None = None
    include_keys_regex: list[str] | None = None
    select_when: str | None = None

    def compile(self) -> Processor:
        """Return the processor."""
        if not self.include_keys and not self.include_keys_regex:
            raise ConfigError("include_keys or include_keys_regex is needed; write what is to be kept")
        keys = [target_key(f"include_keys[{at}]", text) for at, text in enumerate(self.include_keys or ())]
        patterns = patterns_of("include_keys_regex", self.include_keys_regex or ())
        named = frozenset(self.include_keys or ())

        def select(event: Event) -> None:
            # Selected apart, so an event that this fails on is left whole.
            kept = Event({})
            for key in keys:
                if not event.is_null(key):
                    kept.put(key, event.find(key))
            for name, node in event.fields.items() if patterns else ():
                if name not in named and any(pattern.fullmatch(name) for pattern in patterns):
                    kept.fields[name] = node
            event.fields = kept.fields

        return in_turn([guarded("select_when", self.select_when, select)])

    def reads(self) -> set[Key]:
        """Return the selected keys, and those of the condition."""
        return keys_named(self.include_keys or ()) | condition_keys(self.select_when)
