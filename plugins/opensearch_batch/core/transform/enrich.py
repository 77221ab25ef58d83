"""The s3_enrich processor: joins each output row of a job with the input record that has the same key value.

Data Prepper derives the name of the input object from the name of the output object and keeps the input in memory. This
package joins both as streams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.transform.events.event import MISSING, Event, EventError, Key, frozen, value_of
from opensearch_batch.core.transform.flow import Flow

# Position of the input records among the joined sources.
INPUT = 0


class Enrich:
    """Merges members of a record into the event of its output row.

    The value of the key `correlation` is the same in a row and its record. The tags mark an event that has no record,
    or to which the members cannot be copied.
    """

    def __init__(
        self,
        flow_before: Flow,
        *,
        correlation: Key,
        merged: Sequence[Key],
        condition: Callable[[Event], bool] = lambda event: True,  # noqa: ARG005 - all events
        tags_on_failure: Sequence[str] = (),
    ) -> None:
        self.flow_before = flow_before
        self._correlation = correlation
        self._merged = merged
        self._condition = condition
        self._tags = tags_on_failure

    def key(self, event: Event) -> str:
        """Return the correlation value; raise RecordRejected if it is not a string, number or boolean."""
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
