"""Prepares a run of a Data Prepper pipeline: turns a scan into work items, and writes the manifest of each job.

Manifests are written below the work prefix. Data Prepper writes them among the inputs, where its next scan reads them
as inputs.
Source: Data Prepper's SageMakerBatchJobCreator and BedrockBatchJobCreator (2.17).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.file.source import ProcessingCondition
from opensearch_batch.core.data_prepper.output_writers import Writers
from opensearch_batch.core.data_prepper.scan import ListedObject, ScanHead, WorkItem, list_areas, plan_scan, scan_head
from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.objects import Objects, split_uri
from opensearch_batch.core.transform.events.event import Event
from opensearch_batch.core.transform.expressions.expression import compile_condition
from opensearch_batch.core.types.job import BAD_ENDS
from opensearch_batch.core.types.manifest import JOB_NAME, Shard

MANIFEST_INDENT = 4


class ScanCounts(msgspec.Struct, frozen=True):
    """Counts of the objects of a scan: `found` in total, `new` ones claimed by this run.

    `not_for_jobs` counts objects that ml_inference does not receive. `held_back` counts objects that this scan must not
    read yet: a later scan reads them, or, if they are outputs of a job of this pipeline, the job's own run.
    """

    found: int = 0
    new: int = 0
    not_for_jobs: int = 0
    held_back: int = 0


class ScanManifest(msgspec.Struct, frozen=True):
    """The work items of one run.

    `at` is the time of the scan, whose run `run_id` began for the first time at `started_at` (epoch seconds). `shards`
    has a shard for each work item with a job. `ended_badly` has the record folders of the jobs that did not succeed and
    are not repeated.
    """

    pipeline: str
    run_key: str
    at: datetime
    counts: ScanCounts
    work_items: list[WorkItem]
    shards: list[Shard] = []
    model_id: str = ""
    ended_badly: list[str] = []
    run_id: str = ""
    started_at: float = 0.0

    @property
    def attempt(self) -> str:
        """The id of the attempt of `prepare`: the time of its scan."""
        return self.at.isoformat()

    def work_item(self, id: str) -> WorkItem:  # noqa: A002 - the name of the field
        """Return a work item by its id."""
        return next(work_item for work_item in self.work_items if work_item.id == id)


class Scan:
    """One scan of a pipeline.

    Args:
        compiled: the pipeline.
        objects: the store.
        run: the id of the DAG run.
        at: the time of the scan.
        processing_digest: digest of the routes, processors, sinks and indexes.
        is_over: returns whether the DAG run with an id has ended.
    """

    def __init__(
        self,
        compiled: CompiledPipeline,
        objects: Objects,
        *,
        run: str,
        at: datetime,
        processing_digest: str,
        is_over: Callable[[str], bool],
    ) -> None:
        self._compiled = compiled
        self._objects = objects
        self._run = run
        self._at = at
        self._processing_digest = processing_digest
        self._is_over = is_over
        self._layout = compiled.layout
        self._head = scan_head(objects, compiled.layout)

    def plan(self, *, force: bool = False, writes: bool = True) -> tuple[list[WorkItem], ScanCounts]:
        """Return the work items of this run; with `force` also the work items that are done.

        With `writes`, the scan records the claims, so that no other run claims the same objects.
        """
        claimable, not_for_jobs, held_back = self._claimable()

        def claimed(head: ScanHead) -> ScanHead:
            return plan_scan(
                msgspec.structs.replace(head, claims={}, objects={}) if force else head,
                claimable,
                run=self._run,
                at=self._at,
                processing_digest=self._processing_digest,
                objects_per_job=self._objects_per_job,
                is_over=self._is_over,
            )

        head = self._head.change(claimed) if writes else claimed(self._head.load())
        work_items = head.claimed(self._run)
        new = sum(len(work_item.objects) for work_item in work_items)
        counts = ScanCounts(len(claimable) + not_for_jobs + held_back, new, not_for_jobs, held_back)
        return work_items, counts

    def shards(
        self, work_items: Sequence[WorkItem], job_key: Callable[[str], str], *, force: bool
    ) -> tuple[list[Shard], list[str]]:
        """Write the manifests of jobs; return their shards, and the jobs that did not succeed and are not repeated.

        A repeated call writes the same manifests.
        """
        shards, ended_badly = list[Shard](), list[str]()
        for work_item in work_items:
            if work_item.kind == "job":
                job = job_key(work_item.id)
                if not force and self._ended_badly(job):
                    ended_badly.append(self._layout.job(job))
                else:
                    shards.append(self._shard(work_item, job))
        return shards, ended_badly

    def _shard(self, work_item: WorkItem, job: str) -> Shard:
        ml = self._compiled.ml
        assert ml is not None  # noqa: S101 - only pipelines with ml_inference have jobs
        output, is_realtime = ml.output_path.rstrip("/"), ml.action_type == "predict"
        if ml.service_name == "bedrock":
            uri, output = work_item.inputs[0], ml.output_path
        else:
            uri, output = f"{self._layout.job(job)}/input.manifest", f"{output}/{JOB_NAME}"
            self._objects.write(uri, manifest_of(work_item.inputs))
        return Shard(work_item.id, job, uri, 0, work_item.size_bytes, output=output, realtime=is_realtime)

    def _ended_badly(self, job: str) -> bool:
        record = JobRecords(self._objects, self._layout.job(job)).read()
        return record is not None and record.end is not None and record.end.state in BAD_ENDS

    @property
    def _objects_per_job(self) -> int:
        ml = self._compiled.ml
        return ml.max_batch_size if ml is not None and ml.service_name == "sagemaker" else 1

    def _claimable(self) -> tuple[list[ListedObject], int, int]:
        """Return the objects that may be claimed, and the counts `not_for_jobs` and `held_back`."""
        listed = list_areas(self._objects, self._compiled.areas(self._at), excluded_prefixes=[f"{self._layout.root}/"])
        writers = Writers(self._objects, self._layout)
        conditions = _Conditions(self._objects, self._compiled, self._at)
        claimable, not_for_jobs, held_back = list[ListedObject](), 0, 0
        for entry in listed:
            if entry.selection == "metadata_only":
                job_input = self._compiled.job_input(entry)
                if job_input is None:
                    not_for_jobs += 1
                else:
                    claimable.append(msgspec.structs.replace(entry, input=job_input))
            elif writers.must_skip(entry.item.uri) or conditions.must_skip(entry):
                held_back += 1
            else:
                claimable.append(entry)
        return claimable, not_for_jobs, held_back


class _Conditions:
    """Evaluates processing conditions: an object waits until a condition holds for another object in its folder."""

    def __init__(self, objects: Objects, compiled: CompiledPipeline, at: datetime) -> None:
        self._objects = objects
        self._at = at
        self._by_bucket: dict[str, list[ProcessingCondition]] = {}
        for bucket in compiled.source.buckets:
            self._by_bucket.setdefault(bucket.name, []).extend(bucket.processing_conditions)
        self._results: dict[tuple[str, str], bool] = {}

    def must_skip(self, listed: ListedObject) -> bool:
        """Return whether the scan must skip an object: a condition on it does not hold yet, or a condition reads it."""
        bucket, key = split_uri(listed.item.uri)
        folder, _, name = listed.item.uri.rpartition("/")
        for condition in self._by_bucket.get(bucket, ()):
            if condition.applicable_prefix and not key.startswith(condition.applicable_prefix):
                continue
            if name == condition.object_name:
                return True
            # As in Data Prepper, the wait is limited.
            max_wait_s = condition.max_retry * condition.retry_delay
            if self._at.timestamp() - listed.item.modified < max_wait_s and not self._holds(folder, condition):
                return True
        return False

    def _holds(self, folder: str, condition: ProcessingCondition) -> bool:
        key = (folder, condition.when)
        if key not in self._results:
            self._results[key] = self._evaluate(f"{folder}/{condition.object_name}", condition.when)
        return self._results[key]

    def _evaluate(self, uri: str, when: str) -> bool:
        stored = self._objects.read(uri)
        if stored is None:
            return False
        try:
            return compile_condition(when)(Event.of(stored.content.strip()))
        except RecordRejected:
            return False


def manifest_of(inputs: Sequence[str]) -> bytes:
    """Return the manifest of inputs in one bucket, in Data Prepper's format."""
    split = [split_uri(uri) for uri in inputs]
    body: list[Any] = [{"prefix": f"s3://{split[0][0]}/"}, *(key for _, key in split)]
    return json.dumps(body, indent=MANIFEST_INDENT).encode()
