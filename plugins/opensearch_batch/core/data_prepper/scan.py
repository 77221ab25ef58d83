"""A scan assigns each new version of an object to one work item, permanently, before any work starts.

So a run that is repeated, or one beside it, makes the same jobs of the same objects. What is known lies in one object,
moved by conditional writes. An object that changed under its key is new, also when it is what it once was; in the
original it is never read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.object_info import ObjectInfo

Selection = Literal["metadata_only", "data_only", "data_and_metadata"]
Kind = Literal["job", "data"]
MAX_UNIT_BYTES, MAX_UNIT_OBJECTS = 256 << 20, 200


class Area(msgspec.Struct, frozen=True):
    """What a scan looks at: prefixes of a bucket (none: all of it), and when its objects were last modified."""

    bucket: str
    selection: Selection = "data_and_metadata"
    prefixes: tuple[str, ...] = ()
    exclude_suffixes: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def takes(self, item: ObjectInfo) -> bool:
        """Say whether an object that lies below one of its prefixes is looked at."""
        if item.uri.endswith(self.exclude_suffixes):
            return False
        return (self.since or 0) <= item.modified and (self.until is None or item.modified <= self.until)


class Found(msgspec.Struct, frozen=True):
    """An object, and what it is read for; `input` is the object that a job asks its model for."""

    item: ObjectInfo
    selection: Selection
    input: str = ""


class WorkItem(msgspec.Struct, frozen=True):
    """Objects that are done together: those that one job is made of, or rows that one task brings in.

    `at` is when a scan took them: dates in names are of that time. `inputs` are what the job
    asks its model for, one for each object; mostly the object itself.
    """

    id: str
    kind: Kind
    objects: tuple[ObjectInfo, ...]
    at: datetime
    with_metadata: bool = False
    inputs: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """How many bytes lie there."""
        return sum(item.size_bytes for item in self.objects)


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """A work item, the run that has it in hand, and what it was done for: a pipeline that changed does it again."""

    work_item: WorkItem
    run: str = ""
    done_for: str = ""


class ScanState(msgspec.Struct, frozen=True):
    """What all scans of a pipeline found so far.

    `newest` has the ETag of each object as it was found last; a work item that has another one is outdated in that.
    """

    scans: int = 0
    held: tuple[Claim, ...] = ()
    newest: dict[str, str] = {}

    def outdates(self, item: ObjectInfo) -> bool:
        """Say whether another version of an object came after this one."""
        return self.newest.get(item.uri, item.etag) != item.etag


class ScanPlan(msgspec.Struct, frozen=True):
    """What is known after a scan, and the work items that this run does."""

    known: ScanState
    work_items: tuple[WorkItem, ...]


def list_areas(objects: Objects, areas: Sequence[Area], *, own: Sequence[str]) -> list[Found]:
    """Return the objects that a scan looks at, by key; of two areas the one with the longer prefix decides.

    Args:
        objects: where they lie.
        areas: what is looked at.
        own: prefixes of our own files, which are passed by.
    """
    there: dict[str, ObjectInfo] = {}
    for prefix in _roots(areas):
        there |= {item.uri: item for item in objects.list(prefix) if not item.uri.startswith(tuple(own))}
    found = ((item, area_of(areas, item)) for _, item in sorted(there.items()))
    return [Found(item, area.selection) for item, area in found if area is not None]


def area_of(areas: Sequence[Area], item: ObjectInfo) -> Area | None:
    """Return the area that decides about an object, None where it is not looked at."""
    fits = [
        (len(prefix), -at)
        for at, area in enumerate(areas)
        for prefix in area.prefixes or ("",)
        if item.uri.startswith(f"s3://{area.bucket}/{prefix}")
    ]
    if not fits:
        return None
    area = areas[-max(fits)[1]]
    return area if area.takes(item) else None


def plan_scan(
    known: ScanState,
    found: Sequence[Found],
    *,
    run: str,
    at: datetime,
    done_for: str,
    objects_per_job: int,
    is_done: Callable[[WorkItem], bool],
    is_over: Callable[[str], bool],
) -> ScanPlan:
    """Return what this run does: all work items that are new, or that an earlier run left undone.

    Args:
        known: what earlier scans found.
        found: what there is now; outputs of jobs that run are left out by the caller.
        run: this run.
        at: the time.
        done_for: names what is done to work items: routes, processors, sinks and their indexes.
        objects_per_job: at most so many inputs make a job.
        is_done: says of a work item whether it is done for `done_for`; asked of those that no scan knew as done.
        is_over: says of another run whether it has ended.
    """
    there = {(each.item.uri, each.item.etag) for each in found}
    kept, handed, dissolved = list[Claim](), list[WorkItem](), set[str]()
    for held in known.held:
        work_item, gone = held.work_item, not any((item.uri, item.etag) in there for item in held.work_item.objects)
        if held.done_for == done_for or is_done(work_item):
            # Rows are read again for nothing; a job would be paid again, should its inputs come back.
            if work_item.kind == "job" or not gone:
                kept.append(Claim(work_item, done_for=done_for))
        elif held.run not in ("", run) and not is_over(held.run):
            kept.append(held)
        elif work_item.kind == "job" or all((item.uri, item.etag) in there for item in work_item.objects):
            kept.append(Claim(work_item, run=run))
            handed.append(work_item)
        else:
            dissolved |= {item.uri for item in work_item.objects}
    of_units = {(item.uri, item.etag) for held in kept for item in held.work_item.objects}
    fresh = [
        each
        for each in found
        if each.item.uri in dissolved
        or known.newest.get(each.item.uri) != each.item.etag
        or (each.item.uri, each.item.etag) not in of_units
    ]
    new = [*_jobs(fresh, objects_per_job, at), *_data(fresh, at)]
    # What is set back to an earlier version may make the work item of that time again.
    again = {work_item.id for work_item in new}
    kept = [held for held in kept if held.work_item.id not in again] + [Claim(work_item, run=run) for work_item in new]
    work_items = [work_item for work_item in handed if work_item.id not in again] + new
    return ScanPlan(ScanState(known.scans + 1, tuple(kept), _newest(known, kept, found)), tuple(work_items))


def _newest(known: ScanState, kept: Sequence[Claim], found: Sequence[Found]) -> dict[str, str]:
    """Return the newest versions: an object that is gone is forgotten, and new when it comes back.

    Not so the inputs of a job, which would be paid again.
    """
    inputs = {item.uri for held in kept if held.work_item.kind == "job" for item in held.work_item.objects}
    kept_inputs = {uri: etag for uri, etag in known.newest.items() if uri in inputs}
    return kept_inputs | {each.item.uri: each.item.etag for each in found}


def _jobs(found: Iterable[Found], objects_per_job: int, at: datetime) -> Iterator[WorkItem]:
    """Put inputs together, as they follow one another in a bucket: a manifest names one bucket."""
    batch = list[Found]()
    for each in (each for each in found if each.selection == "metadata_only"):
        if batch and (len(batch) >= objects_per_job or _bucket(batch[0].item) != _bucket(each.item)):
            yield _job(batch, at)
            batch = []
        batch.append(each)
    if batch:
        yield _job(batch, at)


def _job(batch: Sequence[Found], at: datetime) -> WorkItem:
    # Jobs are found again by what they ask for, which the object alone says unless input_key names another one.
    others = [each.input for each in batch if each.input != each.item.uri]
    named = digest("job", *(f"{each.item.uri} {each.item.etag}" for each in batch), *others)
    return WorkItem(named, "job", tuple(each.item for each in batch), at, inputs=tuple(each.input for each in batch))


def _data(found: Sequence[Found], at: datetime) -> Iterator[WorkItem]:
    for selection in ("data_only", "data_and_metadata"):
        batch, size_bytes = list[ObjectInfo](), 0
        for item in (each.item for each in found if each.selection == selection):
            if batch and (size_bytes + item.size_bytes > MAX_UNIT_BYTES or len(batch) >= MAX_UNIT_OBJECTS):
                yield _rows(batch, at, with_metadata=selection == "data_and_metadata")
                batch, size_bytes = [], 0
            batch.append(item)
            size_bytes += item.size_bytes
        if batch:
            yield _rows(batch, at, with_metadata=selection == "data_and_metadata")


def _rows(batch: Sequence[ObjectInfo], at: datetime, *, with_metadata: bool) -> WorkItem:
    named = digest("data", *(f"{item.uri} {item.etag}" for item in batch))
    return WorkItem(named, "data", tuple(batch), at, with_metadata)


def _roots(areas: Sequence[Area]) -> list[str]:
    """Return what has to be listed; a prefix below another one is listed with it."""
    prefixes = sorted({f"s3://{area.bucket}/{prefix}" for area in areas for prefix in area.prefixes or ("",)})
    return [each for each in prefixes if not any(each != other and each.startswith(other) for other in prefixes)]


def _bucket(item: ObjectInfo) -> str:
    return item.uri.split("/", 3)[2]
