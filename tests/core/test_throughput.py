"""Throughput over time: sums stay, the number of intervals is bounded, and rates are those of the writer."""

from __future__ import annotations

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.types.throughput import MAX_INTERVALS, Interval, Throughput

EVENTS = st.lists(
    st.builds(
        Interval,
        st.floats(0, 100_000),
        st.integers(0, 1_000),
        st.integers(0, 3),
        st.integers(0, 50).map(float),
        st.integers(0, 50).map(float),
    ),
    max_size=200,
)


@given(EVENTS, st.integers(1, 5))
def test_nothing_is_lost_when_intervals_get_wider(events: list[Interval], parts: int) -> None:
    """One ingest, or several that are added, have the sums of all events, in order, in few intervals."""
    throughputs = [reduce(Throughput.plus, events[part::parts], Throughput()) for part in range(parts)]
    total = Throughput.total(throughputs)
    for found in (total, *throughputs):
        starts = [each.start_s for each in found.intervals]
        assert starts == sorted(set(starts))
        assert len(starts) <= MAX_INTERVALS
        assert all(start_s % found.width_s == 0 for start_s in starts)
    assert sum(each.documents for each in total.intervals) == sum(event.documents for event in events)
    assert sum(each.requests for each in total.intervals) == sum(event.requests for event in events)
    assert sum(each.request_s for each in total.intervals) == sum(event.request_s for event in events)
    assert max((each.slowest_s for each in total.intervals), default=0) == max(
        (event.slowest_s for event in events), default=0
    )
    for event in events:
        assert any(each.start_s <= event.start_s < each.start_s + total.width_s for each in total.intervals)


def test_rates_and_latencies() -> None:
    """Idle time between verdicts counts; without requests there is no latency."""
    throughput = Throughput(2.0, [Interval(0.0, 100, 4, 2.0, 1.0), Interval(8.0, 20)])
    assert throughput.documents_per_s() == 12.0
    assert throughput.documents_per_s(last_s=2.0) == 10.0
    assert Throughput().documents_per_s() == 0.0
    assert [each.latency_s for each in throughput.intervals] == [0.5, 0.0]
