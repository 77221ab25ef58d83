"""A job that others wait for is not cancelled; one that nobody waits for any more is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.jobs.waiters import REFRESH_S, SEEN_WITHIN_S, Waiter, Waiters, others, pause_s
from opensearch_batch.core.storage.s3 import S3Objects

NOW = 100_000.0
waiters = st.builds(
    Waiter,
    dag_id=st.sampled_from(["books", "films"]),
    run_id=st.sampled_from(["monday", "tuesday"]),
    task_id=st.sampled_from(["poll", "repair"]),
    map_index=st.integers(-1, 2),
    ml_task_id=st.sampled_from(["task-1", "task-2", None]),
    seen_at=st.floats(NOW - 2 * SEEN_WITHIN_S, NOW),
)


def waiter(run_id: str, **changes: object) -> Waiter:
    """Make one."""
    known = {"dag_id": "books", "run_id": run_id, "task_id": "poll", "map_index": 0, "ml_task_id": "task-1"}
    return Waiter(**{**known, **changes})  # type: ignore[arg-type] # its own fields


class Folder:
    """The waiters of one job, as processes see them at a time that the test sets."""

    def __init__(self, store: S3Objects, bucket: str) -> None:
        self.now = NOW
        self.waiters = Waiters(store, f"s3://{bucket}/jobs/k", clock=lambda: self.now)


@given(st.lists(waiters), waiters)
def test_those_lately_seen_at_the_same_task_count(found: list[Waiter], mine: Waiter) -> None:
    """Oneself, those at another task of the job, and those not seen for half an hour do not."""
    counted = others(found, mine, now=NOW)
    for one in found:
        lately = NOW - one.seen_at <= SEEN_WITHIN_S
        assert (one in counted) == (lately and one.ml_task_id == mine.ml_task_id and one.who != mine.who)


@given(st.lists(waiters, unique_by=lambda one: one.who), st.data())
def test_of_many_who_end_only_the_last_sees_nobody(found: list[Waiter], data: st.DataObject) -> None:
    """In whatever order they end: so the job is cancelled once, by the last of them."""
    there = [
        Waiter(one.dag_id, one.run_id, one.task_id, one.map_index, "task-1", NOW)
        for one in data.draw(st.permutations(found))
    ]
    alone = [not others(there[number + 1 :], one, now=NOW) for number, one in enumerate(there)]
    assert alone == [False] * (len(there) - 1) + [True] * bool(there)


@given(st.floats(0.0, 1.0))
def test_two_refreshes_may_fail_before_a_waiter_counts_as_gone(jitter: float) -> None:
    """The pause is ten minutes, a quarter more or less."""
    assert 0.75 * REFRESH_S <= pause_s(jitter) <= 1.25 * REFRESH_S
    assert 2 * pause_s(jitter) < SEEN_WITHIN_S


def test_the_first_to_leave_sees_the_other_and_the_last_nobody(store: S3Objects, bucket: str) -> None:
    """On a real store."""
    folder = Folder(store, bucket)
    for run in ("monday", "tuesday"):
        folder.waiters.see(waiter(run))
    assert [other.run_id for other in folder.waiters.left(waiter("monday"))] == ["tuesday"]
    assert folder.waiters.left(waiter("tuesday")) == []


def test_who_is_not_seen_any_more_is_gone_after_half_an_hour(store: S3Objects, bucket: str) -> None:
    """Its process died; one that is seen again counts again."""
    folder = Folder(store, bucket)
    folder.waiters.see(waiter("monday"))
    folder.now += SEEN_WITHIN_S
    assert len(folder.waiters.left(waiter("tuesday"))) == 1
    folder.now += 1
    assert folder.waiters.left(waiter("tuesday")) == []
    folder.waiters.see(waiter("monday"))
    assert len(folder.waiters.left(waiter("tuesday"))) == 1


def test_leaving_twice_or_without_having_been_there_is_no_error(store: S3Objects, bucket: str) -> None:
    """Both ends of a wait may do it."""
    folder = Folder(store, bucket)
    folder.waiters.leave(waiter("monday"))
    folder.waiters.see(waiter("monday"))
    folder.waiters.leave(waiter("monday"))
    folder.waiters.leave(waiter("monday"))
    assert folder.waiters.left(waiter("tuesday")) == []


def test_a_waiter_is_named_as_airflow_names_its_task(store: S3Objects, bucket: str) -> None:
    """With its map index, where it has one."""
    folder = Folder(store, bucket)
    folder.waiters.see(waiter("monday", map_index=-1))
    folder.waiters.see(waiter("monday", map_index=3))
    found = folder.waiters.left(waiter("tuesday"))
    assert sorted(map(str, found)) == ["books monday poll", "books monday poll[3]"]
