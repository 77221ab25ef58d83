"""An event is dropped where the condition holds, and nowhere else.

Source: Data Prepper's DropEventsProcessor and DropEventsWhenCondition (2.17). Not followed: there, against its
documentation, `skip` drops an event whose condition gives no truth value, and `drop` keeps it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Event, EventError, Key
from opensearch_batch.core.transform.events.java_values import EvaluationError
from opensearch_batch.core.transform.expressions.expression import compile_expression
from opensearch_batch.core.transform.processors.base import Processor, ProcessorOptions, condition_keys

Failing = Literal["drop", "drop_silently", "skip", "skip_silently"]


class DropEvents(ProcessorOptions, frozen=True, kw_only=True):
    """Drops events; what gives no truth value is treated as `handle_failed_events` says."""

    drop_when: Annotated[str, Meta(min_length=1)]
    handle_failed_events: Failing = "skip"

    def compile(self) -> Processor:
        """Return the processor."""
        try:
            expression = compile_expression(self.drop_when)
        except ConfigError as error:
            raise ConfigError(f"drop_when: {error}") from error
        silent, keeps = self.handle_failed_events.endswith("_silently"), self.handle_failed_events.startswith("skip")

        def process(event: Event) -> bool:
            try:
                found = expression(event)
            except EvaluationError:
                # As of every condition: what cannot be evaluated does not hold.
                return True
            if isinstance(found, bool):
                return not found
            if keeps and not silent:
                raise EventError(f"drop_when is neither true nor false but {type(found).__name__}")
            return keeps

        return process

    def reads(self) -> set[Key]:
        """Return the keys of the condition."""
        return condition_keys(self.drop_when)
