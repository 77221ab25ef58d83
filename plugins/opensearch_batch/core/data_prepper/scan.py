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
    """Selects the objects that a scan reads: by bucket, prefixes (no prefix selects all), suffixes and times."""

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
    """A listed object and its selection; `input` is the URI that a job reads for this object."""

    item: ObjectInfo
    selection: Selection
    input: str = ""


class WorkItem(msgspec.Struct, frozen=True):
    """Objects that are processed together: the inputs of one job, or rows that one task ingests.

    `at` is the time of the scan that claimed the objects, and the time for date patterns in names. `inputs` are the
    URIs that the job reads, one for each object; they differ from `objects` only if `input_key` names other objects.
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
    """A work item that a run has claimed, or that is done.

    `run` is the id of the DAG run, empty if the work item is done; `done_for` is the digest of the processing that was
    done.
    """

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

    def is_outdated(self, item: ObjectInfo) -> bool:
        """Return whether there is a newer version of an object."""
        return self.newest.get(item.uri, item.etag) != item.etag


class ScanPlan(msgspec.Struct, frozen=True):
    """Result of one scan: the new scan state, and the work items of this run."""

    state: ScanState
    work_items: tuple[WorkItem, ...]


def list_areas(objects: Objects, areas: Sequence[Area], *, excluded_prefixes: Sequence[str]) -> list[ListedObject]:
    """Return the objects that a scan reads, sorted by key; if two areas match, the longer prefix decides.

    Args:
        objects: the store.
        areas: the areas to list.
        excluded_prefixes: prefixes whose objects are skipped, because they contain this package's files.
    """
    listed: dict[str, ObjectInfo] = {}
    for prefix in _roots(areas):
        listed |= {item.uri: item for item in objects.list(prefix) if not item.uri.startswith(tuple(excluded_prefixes))}
    with_areas = ((item, area_of(areas, item)) for _, item in sorted(listed.items()))
    return [ListedObject(item, area.selection) for item, area in with_areas if area is not None]


def area_of(areas: Sequence[Area], item: ObjectInfo) -> Area | None:
    """Return the area that reads an object, None if no area reads it; the longest matching prefix decides."""
    matches = [
        (len(prefix), -at)
        for at, area in enumerate(areas)
        for prefix in area.prefixes or ("",)
        if item.uri.startswith(f"s3://{area.bucket}/{prefix}")
    ]
    if not matches:
        return None
    area = areas[-max(matches)[1]]
    return area if area.reads(item) else None


def plan_scan(
    state: ScanState,
    listed: Sequence[ListedObject],
    *,
    run: str,
    at: datetime,
    processing_digest: str,
    objects_per_job: int,
    is_done: Callable[[WorkItem], bool],
    is_over: Callable[[str], bool],
) -> ScanPlan:
    """Return the work items of this run: new work items, and work items that an earlier run did not finish.

    Args:
        state: the state after earlier scans.
        listed: the listed objects, without outputs of running jobs.
        run: the id of this DAG run.
        at: the time of the scan.
        processing_digest: digest of the routes, processors and sinks, and of the indexes of the sinks.
        objects_per_job: maximum number of inputs of a job.
        is_done: whether a work item is done for this digest; called only if the state does not record the item as done.
        is_over: returns whether the DAG run with an id has ended.
    """
    existing = {(entry.item.uri, entry.item.etag) for entry in listed}
    kept, resumed, released = list[Claim](), list[WorkItem](), set[str]()
    for claim in state.claims:
        work_item = claim.work_item
        gone = not any((item.uri, item.etag) in existing for item in work_item.objects)
        if claim.done_for == processing_digest or is_done(work_item):
            # Rows can be read again at no cost; a job would be paid for again if its inputs come back.
            if work_item.kind == "job" or not gone:
                kept.append(Claim(work_item, done_for=processing_digest))
        elif claim.run not in ("", run) and not is_over(claim.run):
            kept.append(claim)
        elif work_item.kind == "job" or all((item.uri, item.etag) in existing for item in work_item.objects):
            kept.append(Claim(work_item, run=run))
            resumed.append(work_item)
        else:
            released |= {item.uri for item in work_item.objects}
    claimed = {(item.uri, item.etag) for claim in kept for item in claim.work_item.objects}
    fresh = [
        entry
        for entry in listed
        if entry.item.uri in released
        or state.newest.get(entry.item.uri) != entry.item.etag
        or (entry.item.uri, entry.item.etag) not in claimed
    ]
    new = [*_job_items(fresh, objects_per_job, at), *_data_items(fresh, at)]
    # An object that returns to an earlier version may produce the same work item again.
    new_ids = {work_item.id for work_item in new}
    kept = [claim for claim in kept if claim.work_item.id not in new_ids] + [
        Claim(work_item, run=run) for work_item in new
    ]
    work_items = [work_item for work_item in resumed if work_item.id not in new_ids] + new
    return ScanPlan(ScanState(state.scans + 1, tuple(kept), _newest(state, kept, listed)), tuple(work_items))


def _newest(state: ScanState, kept: Sequence[Claim], listed: Sequence[ListedObject]) -> dict[str, str]:
    """Return the newest versions. A deleted object is omitted, so that the object is new if it is created again.

    Deleted inputs of jobs are kept, because their jobs would be paid for again.
    """
    inputs = {item.uri for claim in kept if claim.work_item.kind == "job" for item in claim.work_item.objects}
    kept_inputs = {uri: etag for uri, etag in state.newest.items() if uri in inputs}
    return kept_inputs | {each.item.uri: each.item.etag for each in listed}


def _job_items(listed: Iterable[ListedObject], objects_per_job: int, at: datetime) -> Iterator[WorkItem]:
    """Group inputs in listing order. Each job has inputs of one bucket, because its manifest names one bucket."""
    inputs = (entry for entry in listed if entry.selection == "metadata_only")
    for _, of_bucket in groupby(inputs, key=lambda entry: entry.item.uri.split("/", 3)[2]):
        for batch in _batches(of_bucket, objects_per_job):
            # The listed objects identify a job, together with its inputs if input_key names other objects.
            others = [entry.input for entry in batch if entry.input != entry.item.uri]
            id_ = digest("job", *(f"{entry.item.uri} {entry.item.etag}" for entry in batch), *others)
            yield WorkItem(
                id_, "job", tuple(entry.item for entry in batch), at, inputs=tuple(entry.input for entry in batch)
            )


def _data_items(listed: Sequence[ListedObject], at: datetime) -> Iterator[WorkItem]:
    """Group objects with rows in listing order, up to the size that one task ingests."""
    for selection in ("data_only", "data_and_metadata"):
        for batch in _batches((each for each in listed if each.selection == selection), MAX_OBJECTS, MAX_BYTES):
            items = tuple(each.item for each in batch)
            id_ = digest("data", *(f"{item.uri} {item.etag}" for item in items))
            yield WorkItem(id_, "data", items, at, with_metadata=selection == "data_and_metadata")


def _batches(listed: Iterable[ListedObject], max_objects: int, max_bytes: float = inf) -> Iterator[list[ListedObject]]:
    """Yield batches in order; an object that does not fit into a batch starts the next one."""
    batch, size_bytes = list[ListedObject](), 0
    for entry in listed:
        size_bytes += entry.item.size_bytes
        if batch and (len(batch) == max_objects or size_bytes > max_bytes):
            yield batch
            batch, size_bytes = [], entry.item.size_bytes
        batch.append(entry)
    if batch:
        yield batch


def _roots(areas: Sequence[Area]) -> list[str]:
    """Return the prefixes to list, except prefixes below another prefix."""
    prefixes = sorted({f"s3://{area.bucket}/{prefix}" for area in areas for prefix in area.prefixes or ("",)})
    return [each for each in prefixes if not any(each != other and each.startswith(other) for other in prefixes)]
