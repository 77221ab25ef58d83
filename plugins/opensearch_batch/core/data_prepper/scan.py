"""Plans a scan, which permanently assigns each new version of an object to one work item before any work starts.

So a repeated or concurrent run submits the same jobs for the same objects. The scan state is one object, changed by
conditional writes. An object whose content changes is new, even if it returns to an earlier version; Data Prepper never
reads it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from math import inf
from typing import Literal

import msgspec

from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.object_info import ObjectInfo

Selection = Literal["metadata_only", "data_only", "data_and_metadata"]
Kind = Literal["job", "data"]
MAX_BYTES, MAX_OBJECTS = 256 << 20, 200


class Area(msgspec.Struct, frozen=True):
    """Objects that a scan reads: prefixes of a bucket (all of it if there are none), and modification times."""

    bucket: str
    selection: Selection = "data_and_metadata"
    prefixes: tuple[str, ...] = ()
    exclude_suffixes: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def reads(self, item: ObjectInfo) -> bool:
        """Return whether an object below one of the prefixes is read, given its suffix and time."""
        if item.uri.endswith(self.exclude_suffixes):
            return False
        return (self.since or 0) <= item.modified and (self.until is None or item.modified <= self.until)


class ListedObject(msgspec.Struct, frozen=True):
    """A listed object and its selection; `input` is the object that a job sends to its model."""

    item: ObjectInfo
    selection: Selection
    input: str = ""


class WorkItem(msgspec.Struct, frozen=True):
    """Objects that are processed together: the inputs of one job, or rows that one task ingests.

    `at` is the time of the scan that claimed them; dates in names use it. `inputs` are the objects that the job sends
    to its model, one for each object; usually the object itself.
    """

    id: str
    kind: Kind
    objects: tuple[ObjectInfo, ...]
    at: datetime
    with_metadata: bool = False
    inputs: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The total size of the objects."""
        return sum(item.size_bytes for item in self.objects)


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """A work item that a run has claimed, or that is done; `done_for` is the digest of the processing that was done."""

    work_item: WorkItem
    run: str = ""
    done_for: str = ""


class ScanState(msgspec.Struct, frozen=True):
    """The result of all previous scans of a pipeline.

    `newest` maps each object to its latest ETag; a work item with another ETag has an outdated version of the object.
    """

    scans: int = 0
    claims: tuple[Claim, ...] = ()
    newest: dict[str, str] = {}

    def outdates(self, item: ObjectInfo) -> bool:
        """Return whether there is a newer version of an object."""
        return self.newest.get(item.uri, item.etag) != item.etag


class ScanPlan(msgspec.Struct, frozen=True):
    """Result of one scan: the new scan state, and the work items of this run."""

    state: ScanState
    work_items: tuple[WorkItem, ...]


def list_areas(objects: Objects, areas: Sequence[Area], *, own: Sequence[str]) -> list[ListedObject]:
    """Return the objects that a scan reads, sorted by key; if two areas match, the longer prefix decides.

    Args:
        objects: the store.
        areas: the areas to list.
        own: prefixes of this package's files, which are skipped.
    """
    listed: dict[str, ObjectInfo] = {}
    for prefix in _roots(areas):
        listed |= {item.uri: item for item in objects.list(prefix) if not item.uri.startswith(tuple(own))}
    found = ((item, area_of(areas, item)) for _, item in sorted(listed.items()))
    return [ListedObject(item, area.selection) for item, area in found if area is not None]


def area_of(areas: Sequence[Area], item: ObjectInfo) -> Area | None:
    """Return the area that reads an object, None if no area reads it; the longest matching prefix decides."""
    fits = [
        (len(prefix), -at)
        for at, area in enumerate(areas)
        for prefix in area.prefixes or ("",)
        if item.uri.startswith(f"s3://{area.bucket}/{prefix}")
    ]
    if not fits:
        return None
    area = areas[-max(fits)[1]]
    return area if area.reads(item) else None


def plan_scan(
    state: ScanState,
    found: Sequence[ListedObject],
    *,
    run: str,
    at: datetime,
    done_for: str,
    objects_per_job: int,
    is_done: Callable[[WorkItem], bool],
    is_over: Callable[[str], bool],
) -> ScanPlan:
    """Return the work items of this run: new ones, and those that an earlier run did not finish.

    Args:
        state: the state after earlier scans.
        found: the listed objects, without outputs of running jobs.
        run: this run.
        at: the time.
        done_for: digest of the processing: routes, processors, sinks and their indexes.
        objects_per_job: maximum number of inputs of a job.
        is_done: whether a work item is done for `done_for`; called only if the state does not record it as done.
        is_over: whether another run has ended.
    """
    existing = {(each.item.uri, each.item.etag) for each in found}
    kept, resumed, dissolved = list[Claim](), list[WorkItem](), set[str]()
    for claim in state.claims:
        work_item = claim.work_item
        gone = not any((item.uri, item.etag) in existing for item in work_item.objects)
        if claim.done_for == done_for or is_done(work_item):
            # Rows can be read again at no cost; a job would be paid for again if its inputs come back.
            if work_item.kind == "job" or not gone:
                kept.append(Claim(work_item, done_for=done_for))
        elif claim.run not in ("", run) and not is_over(claim.run):
            kept.append(claim)
        elif work_item.kind == "job" or all((item.uri, item.etag) in existing for item in work_item.objects):
            kept.append(Claim(work_item, run=run))
            resumed.append(work_item)
        else:
            dissolved |= {item.uri for item in work_item.objects}
    claimed = {(item.uri, item.etag) for claim in kept for item in claim.work_item.objects}
    fresh = [
        each
        for each in found
        if each.item.uri in dissolved
        or state.newest.get(each.item.uri) != each.item.etag
        or (each.item.uri, each.item.etag) not in claimed
    ]
    new = [*_jobs(fresh, objects_per_job, at), *_data(fresh, at)]
    # An object that returns to an earlier version may produce the same work item again.
    new_ids = {work_item.id for work_item in new}
    kept = [claim for claim in kept if claim.work_item.id not in new_ids] + [
        Claim(work_item, run=run) for work_item in new
    ]
    work_items = [work_item for work_item in resumed if work_item.id not in new_ids] + new
    return ScanPlan(ScanState(state.scans + 1, tuple(kept), _newest(state, kept, found)), tuple(work_items))


def _newest(state: ScanState, kept: Sequence[Claim], found: Sequence[ListedObject]) -> dict[str, str]:
    """Return the newest versions. A deleted object is forgotten, so it is new if it comes back.

    Inputs of jobs are kept, because their jobs would be paid for again.
    """
    inputs = {item.uri for claim in kept if claim.work_item.kind == "job" for item in claim.work_item.objects}
    kept_inputs = {uri: etag for uri, etag in state.newest.items() if uri in inputs}
    return kept_inputs | {each.item.uri: each.item.etag for each in found}


def _jobs(found: Iterable[ListedObject], objects_per_job: int, at: datetime) -> Iterator[WorkItem]:
    """Group inputs in listing order; a manifest names one bucket."""
    inputs = (each for each in found if each.selection == "metadata_only")
    for _, of_bucket in groupby(inputs, key=lambda each: each.item.uri.split("/", 3)[2]):
        for batch in _batches(of_bucket, objects_per_job):
            # The listed objects identify a job, together with its inputs if input_key names other objects.
            others = [each.input for each in batch if each.input != each.item.uri]
            id_ = digest("job", *(f"{each.item.uri} {each.item.etag}" for each in batch), *others)
            yield WorkItem(
                id_, "job", tuple(each.item for each in batch), at, inputs=tuple(each.input for each in batch)
            )


def _data(found: Sequence[ListedObject], at: datetime) -> Iterator[WorkItem]:
    """Group objects with rows in listing order, up to a size that one task can ingest."""
    for selection in ("data_only", "data_and_metadata"):
        for batch in _batches((each for each in found if each.selection == selection), MAX_OBJECTS, MAX_BYTES):
            items = tuple(each.item for each in batch)
            id_ = digest("data", *(f"{item.uri} {item.etag}" for item in items))
            yield WorkItem(id_, "data", items, at, with_metadata=selection == "data_and_metadata")


def _batches(found: Iterable[ListedObject], most: int, most_bytes: float = inf) -> Iterator[list[ListedObject]]:
    """Yield batches in order; an object that does not fit into a batch starts the next one."""
    batch, size_bytes = list[ListedObject](), 0
    for each in found:
        size_bytes += each.item.size_bytes
        if batch and (len(batch) == most or size_bytes > most_bytes):
            yield batch
            batch, size_bytes = [], each.item.size_bytes
        batch.append(each)
    if batch:
        yield batch


def _roots(areas: Sequence[Area]) -> list[str]:
    """Return the prefixes to list, except prefixes below another prefix."""
    prefixes = sorted({f"s3://{area.bucket}/{prefix}" for area in areas for prefix in area.prefixes or ("",)})
    return [each for each in prefixes if not any(each != other and each.startswith(other) for other in prefixes)]
