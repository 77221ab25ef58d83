"""Each version of an object belongs to exactly one work item; none is assigned twice or forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from opensearch_batch.core.data_prepper.scan import (
    Area,
    ListedObject,
    ScanHead,
    Selection,
    WorkItem,
    area_of,
    plan_scan,
)
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.stored import present

AT = datetime(2026, 11, 21, tzinfo=UTC)


def item(key: str, etag: str = "1", bucket: str = "b", modified: float = 100.0) -> ObjectInfo:
    """Make an object."""
    return ObjectInfo(f"s3://{bucket}/{key}", 10, etag, modified)


def found(*items: ObjectInfo, selection: Selection = "metadata_only") -> list[ListedObject]:
    """Make what a listing finds."""
    return [ListedObject(each, selection, each.uri) for each in items]


class Planned(NamedTuple):
    """The head after a scan, and the work items of its run."""

    head: ScanHead
    work_items: tuple[WorkItem, ...]


def plan(
    known: ScanHead,
    there: list[ListedObject],
    *,
    run: str = "run",
    done: Iterable[WorkItem] = (),
    running: Iterable[str] = (),
    per_job: int = 2,
    processing_digest: str = "now",
    at: datetime = AT,
) -> Planned:
    """Plan a scan, after some work items were done."""
    head = plan_scan(
        known.committed((work_item, "now") for work_item in done),
        there,
        run=run,
        at=at,
        processing_digest=processing_digest,
        objects_per_job=per_job,
        is_over=lambda other: other not in set(running),
    )
    return Planned(head, tuple(head.claimed(run)))


def keys(work_items: Iterable[WorkItem]) -> list[list[str]]:
    """Return the keys of work items."""
    return [[each.uri.removeprefix("s3://") for each in work_item.objects] for work_item in work_items]


def test_inputs_are_put_together_as_they_follow_up_to_the_batch_size_within_a_bucket() -> None:
    """Five objects of two buckets make jobs of at most two, each of one bucket."""
    there = found(item("a"), item("b"), item("c"), item("d", bucket="other"), item("e", bucket="other"))
    assert keys(plan(ScanHead(), there).work_items) == [["b/a", "b/b"], ["b/c"], ["other/d", "other/e"]]


def test_what_is_new_makes_units_of_its_own() -> None:
    """An object that comes between two others later changes nothing of their job."""
    first = plan(ScanHead(), found(item("a"), item("c")))
    second = plan(first.head, found(item("a"), item("b"), item("c")), run="next", done=first.work_items)
    assert keys(second.work_items) == [["b/b"]]
    assert keys(claim.work_item for claim in second.head.claims.values()) == [["b/a", "b/c"], ["b/b"]]


def test_an_object_that_changed_under_its_key_is_new() -> None:
    """Also when it is set back to what it was: the index has what came between. The same bytes again are nothing new.

    The work item of an earlier version returns under its name, so its job is found again.
    """
    first = plan(ScanHead(), found(item("a")))
    second = plan(first.head, found(item("a", "2")), run="next", done=first.work_items)
    assert [work_item.objects[0].etag for work_item in second.work_items] == ["2"]
    back = plan(
        second.head,
        found(item("a")),
        run="third",
        done=[*first.work_items, *second.work_items],
        at=AT + timedelta(days=1),
    )
    assert [work_item.id for work_item in back.work_items] == [work_item.id for work_item in first.work_items]
    assert set(back.work_items).isdisjoint(first.work_items)
    done = [*first.work_items, *second.work_items, *back.work_items]
    assert plan(back.head, found(item("a", modified=200.0)), run="fourth", done=done).work_items == ()


def test_the_newest_version_is_known() -> None:
    """PipelineLab of earlier ones stay, because their jobs are paid, and are outdated."""
    first = plan(ScanHead(), found(item("a"), item("b")))
    second = plan(first.head, found(item("a", "2"), item("b")), run="next", done=first.work_items)
    assert keys(claim.work_item for claim in second.head.claims.values()) == [["b/a", "b/b"], ["b/a"]]
    assert second.head.objects == {"s3://b/a": "2", "s3://b/b": "1"}


def test_rows_that_are_done_and_gone_are_forgotten() -> None:
    """What is known does not grow with objects that are deleted when they are read."""
    first = plan(ScanHead(), found(item("a"), selection="data_only"))
    assert plan(first.head, [], run="next", done=first.work_items).head.claims == {}


def test_a_unit_of_a_run_at_work_is_left_to_it() -> None:
    """Two runs at once never have the same work item; when the first is over without success, the next one takes it."""
    first = plan(ScanHead(), found(item("a")), run="one")
    beside = plan(first.head, found(item("a")), run="two", running=["one"])
    assert beside.work_items == ()
    after = plan(beside.head, found(item("a")), run="three")
    assert after.work_items == first.work_items


def test_the_same_run_gets_its_own_units_again() -> None:
    """A prepare that is repeated hands out the same."""
    first = plan(ScanHead(), found(item("a"), item("b"), item("c")))
    assert set(plan(first.head, found(item("a"), item("b"), item("c"))).work_items) == set(first.work_items)


def test_a_changed_pipeline_does_everything_anew() -> None:
    """What was done for other routes, processors or indexes is handed out again, as the same work items."""
    first = plan(ScanHead(), found(item("a"), item("b")))
    done = plan(first.head, found(item("a"), item("b")), run="two", done=first.work_items)
    assert done.work_items == ()
    again = plan(done.head, found(item("a"), item("b")), run="three", processing_digest="other")
    assert again.work_items == first.work_items


def test_a_scan_that_was_repeated_is_committed_only_once() -> None:
    """What was put together anew is not done by what was done before, and not claimed by it."""
    first = plan(ScanHead(), found(item("a")), run="one")
    forced = plan(ScanHead(version=first.head.version), found(item("a")), run="two")
    assert [work_item.id for work_item in forced.work_items] == [work_item.id for work_item in first.work_items]
    assert forced.head.committed((work_item, "now") for work_item in first.work_items) == forced.head
    done = forced.head.committed((work_item, "now") for work_item in forced.work_items)
    assert (done.claimed("two"), [claim.done_for for claim in done.claims.values()]) == ([], ["now"])


def test_the_version_always_grows() -> None:
    """Also when a clock is set back two hours."""
    first = plan(ScanHead(), found(item("a")))
    second = plan(first.head, found(item("a", "2")), run="next", at=AT - timedelta(hours=2))
    assert second.head.version > first.head.version
    assert (first.head.scans, second.head.scans) == (1, 2)


def test_rows_that_changed_before_they_were_read_are_taken_afresh() -> None:
    """A work item of rows whose object changed would fail for ever; its other objects are new again."""
    first = plan(ScanHead(), found(item("a"), item("b"), selection="data_only"))
    second = plan(first.head, found(item("a", "2"), item("b"), selection="data_only"), run="two")
    assert keys(second.work_items) == [["b/a", "b/b"]]
    assert second.work_items != first.work_items


def test_a_job_whose_input_was_removed_is_finished_all_the_same() -> None:
    """Its job is paid for, and its output is there."""
    first = plan(ScanHead(), found(item("a")))
    assert plan(first.head, [], run="two").work_items == first.work_items


def test_the_longer_prefix_decides() -> None:
    """Outputs below the inputs' prefix are data, whatever order the areas have."""
    areas = [Area("b", "metadata_only", ("in/",)), Area("b", "data_only", ("in/out/",)), Area("c", "data_only")]
    for order in (areas, areas[::-1]):
        for key, selection in (("in/x", "metadata_only"), ("in/out/x", "data_only")):
            area = present(area_of(order, item(key)))
            assert area.selection == selection
    assert area_of(areas, item("else/x")) is None
    assert area_of(areas, item("any", bucket="c")) == areas[2]


def test_times_and_suffixes_leave_objects_out() -> None:
    """An object is looked at from the start to the end, unless its name ends as excluded."""
    areas = [Area("b", "data_only", (), (".manifest",), 100.0, 200.0)]
    assert [area_of(areas, item("x", modified=at)) is not None for at in (99.0, 100.0, 200.0, 201.0)] == [
        False,
        True,
        True,
        False,
    ]
    assert area_of(areas, item("x.manifest", modified=150.0)) is None


@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("12"), max_size=8), st.booleans()),
        max_size=6,
    ),
    st.sampled_from(["metadata_only", "data_only"]),
)
@example(
    [
        ({"a": "1", "b": "1", "c": "1", "d": "1"}, True),
        ({"a": "1", "b": "1", "c": "1", "d": "2"}, False),
        ({"a": "2", "d": "1"}, False),
        ({"a": "1", "b": "1", "c": "1", "d": "1"}, False),
    ],
    "data_only",
)
def test_what_changed_is_handed_out_until_it_is_done_and_no_longer(
    scans: list[tuple[dict[str, str], bool]], selection: Selection
) -> None:
    """Over any sequence of listings: whatever differs from when the object was seen last, also if it was there once."""
    known, done = ScanHead(), set[WorkItem]()
    seen, waiting = dict[str, str](), set[str]()
    for number, (listing, succeeds) in enumerate(scans):
        there = found(*(item(key, etag) for key, etag in sorted(listing.items())), selection=selection)
        made = plan(known, there, run=str(number), done=done, at=AT + timedelta(minutes=number))
        waiting |= {key for key, etag in listing.items() if seen.get(key) != etag}
        seen |= listing
        handed = {(each.uri, each.etag) for work_item in made.work_items for each in work_item.objects}
        assert {(f"s3://b/{key}", listing[key]) for key in waiting & listing.keys()} <= handed
        assert not set(made.work_items) & done
        assert len({work_item.id for work_item in made.work_items}) == len(made.work_items)
        assert {key: made.head.objects[f"s3://b/{key}"] for key in listing} == listing
        if succeeds:
            done |= set(made.work_items)
            waiting -= {uri.removeprefix("s3://b/") for uri, _ in handed}
        known = made.head
