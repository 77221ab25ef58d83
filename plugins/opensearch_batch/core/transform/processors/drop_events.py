"""The drop_events processor: drops the events that meet a condition.

Source: Data Prepper's DropEventsProcessor and DropEventsWhenCondition (2.17). Difference: if the value of
the condition is not a boolean, Data Prepper drops the event with `skip` and keeps it with `drop`, contrary to its
documentation.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from opensearch_batch.core.transform.events.event import Event, EventError, Key
from opensearch_batch.core.transform.events.java_values import EvaluationError
from opensearch_batch.core.transform.expressions.expression import compile_expression
from opensearch_batch.core.transform.processors import base

Failing = Literal["drop", "drop_silently", "skip", "skip_silently"]


class DropEvents(base.ProcessorOptions, frozen=True, kw_only=True):
    """Drops events; `handle_failed_events` applies if the value of the condition is not a boolean."""

    drop_when: Annotated[str, Meta(min_length=1)]
    handle_failed_events: Failing = "skip"

    def compile(self) -> base.Processor:
        with base.errors_at("drop_when"):
            expression = compile_expression(self.drop_when)
        silent, keeps = self.handle_failed_events.endswith("_silently"), self.handle_failed_events.startswith("skip")

        def process(event: Event) -> bool:
            try:
                result = expression(event)
            except EvaluationError:
                # As in other options, a condition that cannot be evaluated is false.
                return True
            if isinstance(result, bool):
                return not result
            if keeps and not silent:
                raise EventError(f"drop_when must return a boolean, not {type(result).__name__}")
            return keeps

        return process

    def reads(self) -> set[Key]:
        return base.keys_read((), self.drop_when)
