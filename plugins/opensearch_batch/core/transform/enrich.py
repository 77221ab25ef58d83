"""s3_enrich: joins an output row with its record in the inputs of its job, by one key.

Data Prepper derives the input's name from the output's and holds the input in memory; here both stream through a join.
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
        before: the processors before s3_enrich.
        correlation: the key that row and record share.
        merged: the keys copied from the record.
        condition: which events are enriched.
        tags_on_failure: tags for an event without a record.
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
        """Return the correlation value of an event.

        Raises:
            RecordRejected: the event has none.
        """
        node = event.find(self._correlation)
        try:
            value = None if node is MISSING else value_of(node)
        except msgspec.DecodeError as error:
            raise RecordRejected(f"the correlation value cannot be read: {error}") from None
        if value is None or isinstance(value, (dict, list)):
            raise RecordRejected(f"no correlation value at {'/'.join(self._correlation)}")
        return str(value)

    def merge(self, event: Event, record: Event | None) -> None:
        """Copy members of the record into the event; tag the event if that fails or there is no record."""
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
