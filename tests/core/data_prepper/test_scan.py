"""Each version of an object belongs to one unit, whatever comes beside it; nothing is handed out twice or forgotten."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.data_prepper.scan import Area, Found, Known, Plan, Selection, Unit, area_of, plan_scan
from opensearch_batch.core.objects import ObjectInfo


def item(key: str, etag: str = "1", bucket: str = "b", modified: float = 100.0) -> ObjectInfo:
    """Make an object."""
    return ObjectInfo(f"s3://{bucket}/{key}", 10, etag, modified)


def found(*items: ObjectInfo, selection: Selection = "metadata_only") -> list[Found]:
    """Make what a listing finds."""
    return [Found(each, selection) for each in items]


def plan(
    known: Known,
    there: list[Found],
    *,
    run: str = "run",
    done: Iterable[Unit] = (),
    running: Iterable[str] = (),
    per_job: int = 2,
    done_for: str = "now",
) -> Plan:
    """Plan a scan."""
    finished = {unit.id for unit in done}
    return plan_scan(
        known,
        there,
        run=run,
        done_for=done_for,
        objects_per_job=per_job,
        is_done=lambda unit: unit.id in finished,
        is_over=lambda other: other not in set(running),
    )


def keys(units: Iterable[Unit]) -> list[list[str]]:
    """Return the keys of units."""
    return [[each.uri.removeprefix("s3://") for each in unit.objects] for unit in units]


def test_inputs_are_put_together_as_they_follow_up_to_the_batch_size_within_a_bucket() -> None:
    """Five objects of two buckets make jobs of at most two, each of one bucket."""
    there = found(item("a"), item("b"), item("c"), item("d", bucket="other"), item("e", bucket="other"))
    assert keys(plan(Known(), there).units) == [["b/a", "b/b"], ["b/c"], ["other/d", "other/e"]]


def test_what_is_new_makes_units_of_its_own() -> None:
    """An object that comes between two others later changes nothing of their job."""
    first = plan(Known(), found(item("a"), item("c")))
    second = plan(first.known, found(item("a"), item("b"), item("c")), run="next", done=first.units)
    assert keys(second.units) == [["b/b"]]
    assert keys(held.unit for held in second.known.held) == [["b/a", "b/c"], ["b/b"]]


def test_an_object_that_changed_under_its_key_is_new() -> None:
    """Another version makes another job; the old one stays known, should the old version come back."""
    first = plan(Known(), found(item("a")))
    second = plan(first.known, found(item("a", "2")), run="next", done=first.units)
    assert [unit.objects[0].etag for unit in second.units] == ["2"]
    assert plan(second.known, found(item("a")), run="third", done=[*first.units, *second.units]).units == ()


def test_rows_that_are_done_and_gone_are_forgotten() -> None:
    """What is known does not grow with objects that are deleted when they are read."""
    first = plan(Known(), found(item("a"), selection="data_only"))
    assert plan(first.known, [], run="next", done=first.units).known.held == ()


def test_a_unit_of_a_run_at_work_is_left_to_it() -> None:
    """Two runs at once never have the same unit; when the first is over without success, the next one takes it."""
    first = plan(Known(), found(item("a")), run="one")
    beside = plan(first.known, found(item("a")), run="two", running=["one"])
    assert beside.units == ()
    after = plan(beside.known, found(item("a")), run="three")
    assert after.units == first.units


def test_the_same_run_gets_its_own_units_again() -> None:
    """A prepare that is repeated hands out the same."""
    first = plan(Known(), found(item("a"), item("b"), item("c")))
    assert set(plan(first.known, found(item("a"), item("b"), item("c"))).units) == set(first.units)


def test_a_changed_pipeline_does_everything_anew() -> None:
    """What was done for other routes, processors or indexes is handed out again, as the same units."""
    first = plan(Known(), found(item("a"), item("b")))
    done = plan(first.known, found(item("a"), item("b")), run="two", done=first.units)
    assert done.units == ()
    again = plan(done.known, found(item("a"), item("b")), run="three", done_for="other")
    assert again.units == first.units


def test_a_done_unit_is_not_asked_about_again() -> None:
    """Its state is kept, so a scan of many objects asks nobody about each."""
    first = plan(Known(), found(item("a")))
    second = plan(first.known, found(item("a")), run="two", done=first.units)

    def never(unit: Unit) -> bool:
        raise AssertionError(unit)

    third = plan_scan(
        second.known,
        found(item("a")),
        run="three",
        done_for="now",
        objects_per_job=2,
        is_done=never,
        is_over=lambda run: True,  # noqa: ARG005 - none is at work
    )
    assert third.units == ()


def test_rows_that_changed_before_they_were_read_are_taken_afresh() -> None:
    """A unit of rows whose object changed would fail for ever; its other objects are new again."""
    first = plan(Known(), found(item("a"), item("b"), selection="data_only"))
    second = plan(first.known, found(item("a", "2"), item("b"), selection="data_only"), run="two")
    assert keys(second.units) == [["b/a", "b/b"]]
    assert second.units != first.units


def test_a_job_whose_input_was_removed_is_finished_all_the_same() -> None:
    """Its job is paid for, and its output is there."""
    first = plan(Known(), found(item("a")))
    assert plan(first.known, [], run="two").units == first.units


def test_the_longer_prefix_decides() -> None:
    """Outputs below the inputs' prefix are data, whatever order the areas have."""
    areas = [Area("b", "metadata_only", ("in/",)), Area("b", "data_only", ("in/out/",)), Area("c", "data_only")]
    for order in (areas, areas[::-1]):
        for key, selection in (("in/x", "metadata_only"), ("in/out/x", "data_only")):
            area = area_of(order, item(key))
            assert area is not None
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
        st.tuples(
            st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("12"), max_size=8),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_each_version_is_handed_out_until_it_is_done_and_never_after(scans: list[tuple[dict[str, str], bool]]) -> None:
    """Over any sequence of listings, a version that is there is in one unit, and done units come no more."""
    known, done = Known(), dict[str, Unit]()
    for number, (listing, succeeds) in enumerate(scans):
        there = found(*(item(key, etag) for key, etag in sorted(listing.items())))
        made = plan(known, there, run=str(number), done=done.values())
        of_units = [(each.uri, each.etag) for held in made.known.held for each in held.unit.objects]
        for each in there:
            assert of_units.count((each.item.uri, each.item.etag)) == 1
        assert not {unit.id for unit in made.units} & done.keys()
        handed = {(each.uri, each.etag) for unit in made.units for each in unit.objects}
        finished = {(each.uri, each.etag) for unit in done.values() for each in unit.objects}
        assert {(each.item.uri, each.item.etag) for each in there} - finished <= handed
        if succeeds:
            done |= {unit.id: unit for unit in made.units}
        known = made.known
