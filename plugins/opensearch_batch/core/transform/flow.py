"""Runs the processors on an event in order, then selects the sinks of the event by routes.

Every event is sent to the sinks without routes. If an event meets the conditions of routes, it is also sent to the
sinks that list these routes, otherwise to the sinks that list ``_default``. An event without a sink is counted as
unrouted; Data Prepper drops it silently.
Source: Data Prepper's Router and RouteEventEvaluator (2.17).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from opensearch_batch.core.transform.events.event import Event, EventError

Processor = Callable[[Event], bool]
Condition = Callable[[Event], bool]
DEFAULT_ROUTE = "_default"
UNROUTED, DROPPED = 0, -1
# Maximum number of different failure reasons in memory; a reason may contain text of a record.
MAX_REASONS = 100


class Flow:
    """The processors and routes of one pipeline, each with its name; a processor drops an event by returning False.

    `sinks` has the route names of each sink; a sink without route names receives all events.
    """

    def __init__(
        self,
        processors: Sequence[tuple[str, Processor]],
        routes: Sequence[tuple[str, Condition]] = (),
        sinks: Sequence[Sequence[str]] = ((),),
    ) -> None:
        self._processors = list(processors)
        self._always = sum(1 << at for at, names in enumerate(sinks) if not names)
        self._default = _sinks_of(DEFAULT_ROUTE, sinks)
        self._routes = [(condition, _sinks_of(name, sinks)) for name, condition in routes]
        self.failures: Counter[str] = Counter()

    def run(self, event: Event) -> int:
        """Process an event; return its sinks as a bit set, `UNROUTED` if it has none, or `DROPPED`."""
        for name, processor in self._processors:
            try:
                if not processor(event):
                    return DROPPED
            except EventError as error:
                # As in Data Prepper, the event keeps the changes that the processor made before the error.
                self._count_failure(f"{name}: {error}")
        matched = False
        selected = self._always
        for condition, sinks in self._routes:
            if condition(event):
                matched = True
                selected |= sinks
        return selected if matched else selected | self._default

    def _count_failure(self, reason: str) -> None:
        if reason in self.failures or len(self.failures) < MAX_REASONS:
            self.failures[reason] += 1
        else:
            self.failures["others"] += 1


def _sinks_of(route: str, sinks: Sequence[Sequence[str]]) -> int:
    return sum(1 << at for at, names in enumerate(sinks) if route in names)
