"""When a job is looked at next: at intervals that grow with its age, not with others in step, and at its deadline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.jobs.poll_policy import PollPolicy

ages = st.floats(0.0, 1e6)
jitters = st.floats(0.0, 1.0)


@given(age_s=ages, jitter=jitters)
def test_a_look_is_a_tenth_of_its_pause_sooner_or_later(age_s: float, jitter: float) -> None:
    """Whatever the random number, and whatever the age."""
    watch = PollPolicy(1000.0)
    pause = watch.pause_s(now=1000.0 + age_s)
    found = watch.next_poll_at(now=1000.0 + age_s, jitter=jitter) - 1000.0 - age_s
    assert 0.9 * pause - 1e-6 <= found <= 1.1 * pause + 1e-6


def test_the_random_number_decides_within_that_tenth() -> None:
    """None is the soonest, half the middle, one the latest."""
    watch = PollPolicy(0.0, poll_every_s=100.0)
    assert [round(watch.next_poll_at(now=0.0, jitter=jitter), 6) for jitter in (0.0, 0.5, 1.0)] == [90.0, 100.0, 110.0]


@given(age_s=st.floats(0.0, 499.0), jitter=jitters)
def test_the_last_look_is_at_the_deadline(age_s: float, jitter: float) -> None:
    """A job is not left to run for the rest of an interval."""
    watch = PollPolicy(0.0, deadline_at=500.0)
    assert age_s < watch.next_poll_at(now=age_s, jitter=jitter) <= 500.0
