"""s3_enrich without guessing: an output row finds its record in the inputs of its own job, by one key.

The original guesses the input's name from the output's and holds it in memory; here both stream through a join.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.transform.events.event import MISSING, Event, EventError, Key, frozen, value_of
from opensearch_batch.core.transform.flow import Flow

INPUT = 0


class Enrich:
    """Merges members of a record into the event of its output row.

    Args:
        before: the processors that come before it.
        correlation: the key both have in common.
        merged: the keys that are taken from the record.
        condition: for which events.
        tags_on_failure: tags of an event without a record.
    """

    def __init__(
        self,
        before: Flow,
        *,
        correlation: Key,
        merged: Sequence[Key],
        condition: Callable[[Event], bool] = lambda event: True,  # noqa: ARG005 - all of them
        tags_on_failure: Sequence[str] = (),
    ) -> None:
        self.before = before
        self._correlation = correlation
        self._merged = merged
        self._condition = condition
        self._tags = tags_on_failure

    def key(self, event: Event) -> str:
        """Return what a row is found by.

        Raises:
            RecordRejected: it has no such key.
        """
        node = event.find(self._correlation)
        try:
            value = None if node is MISSING else value_of(node)
        except msgspec.DecodeError as error:
            raise RecordRejected(f"what it is found by cannot be read: {error}") from None
        if value is None or isinstance(value, (dict, list)):
            raise RecordRejected(f"nothing to be found by at {'/'.join(self._correlation)}")
        return str(value)

    def merge(self, event: Event, record: Event | None) -> None:
        """Put the record's members into the event; one without a record, or without room for it, is tagged."""
        if not self._condition(event):
            return
        if record is None:
            event.tags.update(self._tags)
            return
        try:
            for key in self._merged:
                node = record.find(key)
                if node is not MISSING:
                    event.put(key, frozen(node))
        except EventError:
            event.tags.update(self._tags)
