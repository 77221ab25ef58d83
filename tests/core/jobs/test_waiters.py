"""Waiters of a job: it is cancelled only when no other run waits for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.jobs.waiters import EXPIRES_AFTER_S, REFRESH_S, Waiter, Waiters, others, pause_s
from opensearch_batch.core.storage.s3 import S3Objects

NOW = 100_000.0
waiters = st.builds(
    Waiter,
    dag_id=st.sampled_from(["books", "films"]),
    run_id=st.sampled_from(["monday", "tuesday"]),
    task_id=st.sampled_from(["poll", "repair"]),
    map_index=st.integers(-1, 2),
    ml_task_id=st.sampled_from(["task-1", "task-2", None]),
    refreshed_at=st.floats(NOW - 2 * EXPIRES_AFTER_S, NOW),
)


def waiter(run_id: str, **changes: object) -> Waiter:
    """Make a waiter."""
    known = {"dag_id": "books", "run_id": run_id, "task_id": "poll", "map_index": 0, "ml_task_id": "task-1"}
    return Waiter(**{**known, **changes})  # type: ignore[arg-type] # its own fields


class Folder:
    """The waiters of one job, with a clock that the test sets."""

    def __init__(self, store: S3Objects, bucket: str) -> None:
        self.now = NOW
        self.waiters = Waiters(store, f"s3://{bucket}/jobs/k", clock=lambda: self.now)


@given(st.lists(waiters), waiters)
def test_waiters_of_the_same_task_count_until_they_expire(found: list[Waiter], mine: Waiter) -> None:
    """A waiter itself, waiters of another task of the job, and those not refreshed for half an hour do not count."""
    counted = others(found, mine, now=NOW)
    for one in found:
        is_fresh = NOW - one.refreshed_at <= EXPIRES_AFTER_S
        assert (one in counted) == (is_fresh and one.ml_task_id == mine.ml_task_id and one.key != mine.key)


@given(st.lists(waiters, unique_by=lambda one: one.key), st.data())
def test_of_many_that_end_only_the_last_sees_no_other(found: list[Waiter], data: st.DataObject) -> None:
    """In any order; so the job is cancelled once, by the last one."""
    present = [
        Waiter(one.dag_id, one.run_id, one.task_id, one.map_index, "task-1", NOW)
        for one in data.draw(st.permutations(found))
    ]
    alone = [not others(present[number + 1 :], one, now=NOW) for number, one in enumerate(present)]
    assert alone == [False] * (len(present) - 1) + [True] * bool(present)


@given(st.floats(0.0, 1.0))
def test_two_refreshes_may_fail_before_a_waiter_expires(jitter: float) -> None:
    """The pause is ten minutes, plus or minus a quarter."""
    assert 0.75 * REFRESH_S <= pause_s(jitter) <= 1.25 * REFRESH_S
    assert 2 * pause_s(jitter) < EXPIRES_AFTER_S


def test_the_first_to_end_sees_the_other_and_the_last_sees_none(store: S3Objects, bucket: str) -> None:
    """The same on a real store."""
    folder = Folder(store, bucket)
    for run in ("monday", "tuesday"):
        folder.waiters.register(waiter(run))
    assert [other.run_id for other in folder.waiters.remove_and_list_remaining(waiter("monday"))] == ["tuesday"]
    assert folder.waiters.remove_and_list_remaining(waiter("tuesday")) == []


def test_a_waiter_expires_after_half_an_hour_without_a_refresh(store: S3Objects, bucket: str) -> None:
    """Its process died; after another refresh it counts again."""
    folder = Folder(store, bucket)
    folder.waiters.register(waiter("monday"))
    folder.now += EXPIRES_AFTER_S
    assert len(folder.waiters.remove_and_list_remaining(waiter("tuesday"))) == 1
    folder.now += 1
    assert folder.waiters.remove_and_list_remaining(waiter("tuesday")) == []
    folder.waiters.register(waiter("monday"))
    assert len(folder.waiters.remove_and_list_remaining(waiter("tuesday"))) == 1


def test_removing_twice_or_without_registration_is_no_error(store: S3Objects, bucket: str) -> None:
    """Trigger and on_kill may both remove a waiter."""
    folder = Folder(store, bucket)
    folder.waiters.remove(waiter("monday"))
    folder.waiters.register(waiter("monday"))
    folder.waiters.remove(waiter("monday"))
    folder.waiters.remove(waiter("monday"))
    assert folder.waiters.remove_and_list_remaining(waiter("tuesday")) == []


def test_a_waiter_is_named_as_airflow_names_its_task(store: S3Objects, bucket: str) -> None:
    """With its map index, if it has one."""
    folder = Folder(store, bucket)
    folder.waiters.register(waiter("monday", map_index=-1))
    folder.waiters.register(waiter("monday", map_index=3))
    found = folder.waiters.remove_and_list_remaining(waiter("tuesday"))
    assert sorted(map(str, found)) == ["books monday poll", "books monday poll[3]"]
