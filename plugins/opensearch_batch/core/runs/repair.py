"""Repair: one smaller job a run, for the records for which the service returned no prediction.

The records are staged again, so one ingest writes those that have a prediction now, and makes dead letters of the rest.
All state is in the prediction store: a task that is interrupted finds its job as the open shard that has the keys.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.contract import ServiceAdapter, job_keys
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.ledger.key_index import keys_of
from opensearch_batch.core.ledger.predictions import NewShard, PredictionStore
from opensearch_batch.core.ledger.staged import StagedRecord, StagedWriter, read_staged, staged_keys
from opensearch_batch.core.ledger.store_head import Located
from opensearch_batch.core.runs.run_account import shard_reports
from opensearch_batch.core.storage.dead_letters import MAX_REASON_CHARS, SHOWN_REASONS
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.counts import MIN_FAILED, exceeds
from opensearch_batch.core.types.job import BAD_ENDS, End
from opensearch_batch.core.types.manifest import REPAIR, Manifest, Shard
from opensearch_batch.core.types.record_ids import record_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RepairJob(msgspec.Struct, frozen=True):
    """The key of the job for which the repair of a run reserved keys, or was about to, and its number of records.

    `identity` is that of the attempt of `prepare`, and of the records without a prediction.
    """

    job: str
    records: int = 0
    identity: str = ""


class Repair:
    """The repair of one run.

    `repair_at_most` is the share of the records that the run paid for, such as ``20%``, that may be without a
    prediction; with more, and more than `MIN_FAILED`, the service or the model has a fault that another job does not
    mend.
    """

    def __init__(
        self, objects: Objects, layout: Layout, manifest: Manifest, adapter: ServiceAdapter, repair_at_most: str
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._manifest = manifest
        self._adapter = adapter
        self._repair_at_most = repair_at_most
        self._store = PredictionStore(objects, manifest.predictions)
        self._own_job = JsonDocument(objects, layout.repair_job(manifest.run_key), RepairJob)
        self._files: list[str] = []
        self._records = 0

    def shard(self) -> Shard | None:
        """Stage the records without a prediction, reserve their keys, and return their shard; None if there are none.

        The shard has no job if the records are too few for one, if another run has got their predictions meanwhile, or
        if the run does not pay.

        Raises:
            FatalError: the records are too many; the message has the most common reasons.
        """
        failed = [
            (shard, report.verdicts)
            for shard, report in shard_reports(self._objects, self._layout, self._manifest, self._manifest.shards)
            if report.verdicts.unanswered
        ]
        if not failed:
            return None
        self._files = [self._layout.unanswered(self._manifest.run_key, shard.id) for shard, _ in failed]
        keys = [staged_keys(self._objects, uri) for uri in self._files]
        distinct = [_count(each) for each in keys]
        all_keys = b"".join(keys)
        reasons = sum((Counter(verdicts.reasons) for _, verdicts in failed), Counter[str]())
        if self._manifest.pays and (refusal := self._refusal(_count(all_keys), reasons)):
            for (shard, verdicts), count in zip(failed, distinct, strict=True):
                if count == shard.records:
                    self._invalidate(shard, verdicts.reasons)
            raise FatalError(refusal)
        staged = self._layout.staged(self._manifest.run_key, REPAIR)
        with StagedWriter(self._objects, staged) as writer:
            for record in self._staged():
                writer.add(record)
                self._records += 1
        repaired = Shard(REPAIR, staged=staged, documents=self._records)
        return self._with_job(repaired, all_keys) if self._manifest.pays else repaired

    def without_job(self, shard: Shard) -> Shard:
        """Return the shard without its job, which did not succeed; its records become dead letters.

        Records that failed once may be those that make a whole job fail, so the run does not fail for them.
        """
        own = self._own_job.read()
        if own is not None and own.job == shard.job:
            self._store.drop(shard.job)
        return Shard(shard.id, staged=shard.staged, documents=shard.documents)

    def _refusal(self, failed: int, reasons: Counter[str]) -> str:
        """Return why there is no repair, empty if there is one."""
        paid = sum(shard.records for shard in self._manifest.shards)
        at_most = self._adapter.limits.records_at_most(len(self._manifest.inputs))
        if failed <= at_most and not exceeds(failed, paid, self._repair_at_most, always_allowed=MIN_FAILED):
            return ""
        shown = "; ".join(
            f"{count:,} x {reason[:MAX_REASON_CHARS]}" for reason, count in reasons.most_common(SHOWN_REASONS)
        )
        return (
            f"{failed:,} of {paid:,} records that were paid for have no prediction: {shown}. repair_at_most allows "
            f"{self._repair_at_most}, and a job {at_most:,} records. Nothing was committed, and the predictions of the "
            "other records are stored. Correct the cause and run again, which pays for the failed records only, or "
            "raise repair_at_most"
        )

    def _invalidate(self, shard: Shard, reasons: dict[str, int]) -> None:
        """Record that no record of a job has a prediction; otherwise the next run would find the job and reuse it."""
        records = JobRecords(self._objects, self._layout.job(shard.job))
        if record := records.read():
            reason = next(iter(reasons), "")[:MAX_REASON_CHARS]
            text = f"none of its {shard.records:,} records has a prediction: {reason}"
            records.end(record.submission, End("UNUSABLE", time.time(), text))

    def _with_job(self, shard: Shard, keys: bytes) -> Shard:
        """Reserve the keys, and return the shard with the job that gets their predictions, if there is one."""

        def cut(located: Located) -> Iterator[NewShard]:
            absent = located.absent()
            if len(absent) >= max(self._adapter.limits.min_records, 1) or self._is_realtime(len(absent)):
                yield self._write_input(absent, keys)

        if done := self._done(shard, keys):
            return done
        located, new = self._store.reserve(keys, cut)
        # A former attempt of this task, or another run, may have reserved the keys.
        jobs = [each.job_key for each in new] or [job for job, _ in located.used_shards().most_common(1)]
        opened = self._store.head().open.get(jobs[0]) if jobs else None
        if opened is None:
            return shard
        uri = self._input(jobs[0])
        stored = self._objects.head(uri)
        return msgspec.structs.replace(
            shard,
            job=jobs[0],
            input=uri,
            records=opened.records,
            bytes=stored.size_bytes if stored else 0,
            realtime=self._is_realtime(opened.records),
        )

    def _is_realtime(self, records: int) -> bool:
        return 0 < records < self._manifest.realtime_below

    def _identity(self, keys: bytes) -> str:
        return f"{self._manifest.shard_digest(Shard(REPAIR))} {hashlib.sha256(keys).hexdigest()}"

    def _done(self, shard: Shard, keys: bytes) -> Shard | None:
        """Return the shard with its job if that completed and another run has read its output: it failed for the rest.

        None if there is no such job.
        """
        own = self._own_job.read()
        if own is None or own.identity != self._identity(keys) or own.job in self._store.head().open:
            return None
        record = JobRecords(self._objects, self._layout.job(own.job)).read()
        if record is None or record.end is None or record.end.state in BAD_ENDS:
            return None
        return msgspec.structs.replace(shard, job=own.job, input=self._input(own.job), records=own.records)

    def _write_input(self, positions: NDArray[np.int64], keys: bytes) -> NewShard:
        """Write the input of a job for the records at these positions."""
        request_line = self._adapter.request_line(self._manifest.parameters, self._manifest.inputs)
        wanted, digest = iter([*positions.tolist(), -1]), hashlib.sha256()
        with Spool() as spool:
            position = next(wanted)
            number = 0
            for at, record in enumerate(self._staged()):
                if at == position:
                    line = request_line(record.record, record_id(number)) + b"\n"
                    digest.update(line)
                    spool.write(line)
                    position = next(wanted)
                    number += 1
            if spool.tell() > (at_most := self._adapter.limits.max_bytes):
                raise FatalError(
                    f"{number:,} records that were paid for have no prediction, and their {spool.tell():,} bytes are "
                    f"more than the {at_most:,} that a job takes. Nothing was committed, and the predictions of the "
                    "other records are stored; run again, which pays for these records in several jobs"
                )
            # The run makes the key differ from that of the job that failed, which may have the same lines.
            content = f"{digest.hexdigest()} {REPAIR} {self._manifest.run_key}"
            job_key = job_keys(self._adapter, self._manifest.parameters, self._manifest.inputs)(content)
            spool.seek(0)
            self._objects.upload(self._input(job_key), spool)
        self._own_job.write(RepairJob(job_key, number, self._identity(keys)))
        return NewShard(job_key, keys_of(keys)[positions].tobytes())

    def _staged(self) -> Iterator[StagedRecord]:
        return read_staged(self._objects, *self._files)

    def _input(self, job_key: str) -> str:
        return f"{self._layout.job(job_key)}/input.jsonl"


def _count(keys: bytes) -> int:
    """Return the number of distinct keys."""
    import numpy as np

    return len(np.unique(keys_of(keys)))
