"""Plans a scan, which permanently assigns each new version of an object to one work item before any work starts.

So a repeated or concurrent run submits the same jobs for the same objects. A scan claims its work items in the head of
the pipeline, and the last step of the run marks them there as done. The next run repeats the work items that a killed
run has not finished. An object whose content changes is new, even if it returns to an earlier version; Data Prepper
never reads it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from math import inf
from typing import Literal

import msgspec

from opensearch_batch.core.storage.head_document import HeadDocument, NumberedHead
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.versions import next_version

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

    `at` is the time of the scan that put them together, and the time for date patterns in names; `version` is that of
    this scan. `inputs` are the URIs that the job reads, one for each object; they differ from `objects` only if
    `input_key` names other objects.
    """

    id: str
    kind: Kind
    objects: tuple[ObjectInfo, ...]
    at: datetime
    with_metadata: bool = False
    inputs: tuple[str, ...] = ()
    version: int = 0

    @property
    def size_bytes(self) -> int:
        """The total size of the objects."""
        return sum(item.size_bytes for item in self.objects)


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """A work item, and what happened to it.

    `run` is the id of the DAG run that has claimed it, empty if it is done. `done_for` is the digest of the processing
    for which it was done last; it stays when a run claims the work item again.
    """

    work_item: WorkItem
    run: str = ""
    done_for: str = ""


class ScanHead(NumberedHead, frozen=True, omit_defaults=True):
    """What the scans of a pipeline have found, claimed and done.

    `scans` counts them. `version` is that of the last one; it always grows. `claims` are the work items by id.
    `objects` has the ETag of each object as it was found last.
    """

    scans: int = 0
    version: int = 0
    claims: dict[str, Claim] = msgspec.field(default_factory=dict)
    objects: dict[str, str] = msgspec.field(default_factory=dict)

    def is_outdated(self, item: ObjectInfo) -> bool:
        """Return whether there is a newer version of an object."""
        return self.objects.get(item.uri, item.etag) != item.etag

    def claim(self, work_item: WorkItem) -> Claim | None:
        """Return the claim of a work item; None if a scan has grouped its objects again, in a later version."""
        claim = self.claims.get(work_item.id)
        return claim if claim is not None and claim.work_item.version == work_item.version else None

    def claimed(self, run: str) -> list[WorkItem]:
        """Return the work items that a run has claimed and not done."""
        return [claim.work_item for claim in self.claims.values() if claim.run == run]

    def committed(self, done: Iterable[tuple[WorkItem, str]]) -> ScanHead:
        """Return the head in which work items are done; it keeps the claims of later versions.

        Args:
            done: the work items, each with the digest of the processing.
        """
        claims = {item.id: Claim(item, done_for=digest) for item, digest in done if self.claim(item) is not None}
        return msgspec.structs.replace(self, claims=self.claims | claims)


def scan_head(objects: Objects, layout: Layout) -> HeadDocument[ScanHead]:
    """Return the head of a pipeline on object storage."""
    remedy = "restore its previous version; without it, all objects are new, and jobs are paid for again"
    return HeadDocument(objects, layout.scan_head(), ScanHead, remedy=remedy)


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
    head: ScanHead,
    listed: Sequence[ListedObject],
    *,
    run: str,
    at: datetime,
    processing_digest: str,
    objects_per_job: int,
    is_over: Callable[[str], bool],
) -> ScanHead:
    """Return the head with the claims of one more scan: new work items, and those that earlier runs did not finish.

    Args:
        head: the head after earlier scans.
        listed: the listed objects, without outputs of running jobs.
        run: the id of this DAG run.
        at: the time of the scan.
        processing_digest: digest of the routes, processors and sinks, and of the indexes of the sinks.
        objects_per_job: maximum number of inputs of a job.
        is_over: returns whether the DAG run with an id has ended.
    """
    version = next_version(at.timestamp(), after=head.version)
    existing = {(entry.item.uri, entry.item.etag) for entry in listed}
    claims, released = dict[str, Claim](), set[str]()
    for id_, claim in head.claims.items():
        is_job, items = claim.work_item.kind == "job", claim.work_item.objects
        present = [(item.uri, item.etag) in existing for item in items]
        if not claim.run and claim.done_for == processing_digest:
            # Rows can be read again at no cost; a job would be paid for again if its inputs come back.
            if is_job or any(present):
                claims[id_] = claim
        elif claim.run not in ("", run) and not is_over(claim.run):
            claims[id_] = claim
        elif is_job or all(present):
            claims[id_] = msgspec.structs.replace(claim, run=run)
        else:
            released |= {item.uri for item in items}
    assigned = {(item.uri, item.etag) for claim in claims.values() for item in claim.work_item.objects}
    fresh = [
        entry
        for entry in listed
        if entry.item.uri in released
        or head.objects.get(entry.item.uri) != entry.item.etag
        or (entry.item.uri, entry.item.etag) not in assigned
    ]
    for work_item in (*_job_items(fresh, objects_per_job, at), *_data_items(fresh, at)):
        # An object that returns to an earlier version may produce the same work item again.
        claims.pop(work_item.id, None)
        claims[work_item.id] = Claim(msgspec.structs.replace(work_item, version=version), run)
    objects = _newest(head, claims, listed)
    return msgspec.structs.replace(head, scans=head.scans + 1, version=version, claims=claims, objects=objects)


def _newest(head: ScanHead, claims: Mapping[str, Claim], listed: Sequence[ListedObject]) -> dict[str, str]:
    """Return the newest versions. A deleted object is omitted, so that the object is new if it is created again.

    Deleted inputs of jobs are kept, because their jobs would be paid for again.
    """
    work_items = [claim.work_item for claim in claims.values() if claim.work_item.kind == "job"]
    inputs = {item.uri for work_item in work_items for item in work_item.objects}
    kept_inputs = {uri: etag for uri, etag in head.objects.items() if uri in inputs}
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
