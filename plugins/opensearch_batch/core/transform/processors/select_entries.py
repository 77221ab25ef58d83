"""The select_entries processor: removes all keys that are not selected, and selected keys with a null value.

Source: Data Prepper's SelectEntriesProcessor (2.17).
"""

from __future__ import annotations

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Event, Key
from opensearch_batch.core.transform.processors import base


class SelectEntries(base.ProcessorOptions, frozen=True, kw_only=True):
    """Keeps the listed keys, and the top-level keys whose whole name matches a regular expression."""

    include_keys: list[str] | None = None
    include_keys_regex: list[str] | None = None
    select_when: str | None = None

    def compile(self) -> base.Processor:
        if not self.include_keys and not self.include_keys_regex:
            raise ConfigError("include_keys or include_keys_regex is required; write the keys to keep")
        keys = [base.target_key(f"include_keys[{index}]", text) for index, text in enumerate(self.include_keys or ())]
        patterns = base.patterns_of("include_keys_regex", self.include_keys_regex or ())
        named = frozenset(self.include_keys or ())

        def select(event: Event) -> None:
            # The selected keys are put into a new event, so that the original event is unchanged after a failure.
            kept = Event({})
            for key in keys:
                if not event.is_null(key):
                    kept.put(key, event.find(key))
            for name, node in event.fields.items() if patterns else ():
                if name not in named and any(pattern.fullmatch(name) for pattern in patterns):
                    kept.fields[name] = node
            event.fields = kept.fields

        return base.stop_on_failure([base.guarded("select_when", self.select_when, select)])

    def reads(self) -> set[Key]:
        return base.keys_read(self.include_keys or (), self.select_when)
