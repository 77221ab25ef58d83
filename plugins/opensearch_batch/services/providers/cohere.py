"""Cohere's own API: a shard is uploaded as a dataset, and its embed job is known by that dataset and by its name."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RetriableError
from opensearch_batch.core.storage.cohere_errors import cohere_errors
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.record_ids import RECORD_ID
from opensearch_batch.services.cohere import DATASET
from opensearch_batch.services.providers.stopping import stop_if_live

if TYPE_CHECKING:
    from cohere import Client
    from cohere.types import EmbedJob

SPOOL_BYTES = 16 << 20
VALIDATION_POLL_S, VALIDATION_MOST_S = 2.0, 900.0
LIVE = frozenset({"processing"})


class CohereProvider:
    """Datasets and embed jobs.

    Args:
        client: a `cohere` client.
        objects: where the shards lie.
        clock, sleep: seconds; given by tests.
    """

    def __init__(
        self,
        client: Client,
        objects: Objects,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._objects = objects
        self._clock = clock
        self._sleep = sleep

    def stage(self, uri: str, name: str) -> dict[str, str]:
        """Upload a shard as a dataset and wait until Cohere has validated it; memory is bounded whatever its size.

        Raises:
            ConfigError: Cohere finds the dataset wrong.
        """
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            with self._objects.open(uri) as stream:
                shutil.copyfileobj(stream, spool, 1 << 20)
            spool.seek(0)
            with cohere_errors(f"upload of {uri} to Cohere"):
                created = self._client.datasets.create(
                    name=name, type="embed-input", data=(f"{name}.jsonl", spool), keep_fields=[RECORD_ID]
                )
        staged = {DATASET: str(created.id)}
        try:
            self._wait_until_valid(str(created.id), uri)
        except BatchError:
            # Nobody would know of it, and an account has room for so many only.
            with suppress(BatchError):
                self.unstage(staged)
            raise
        return staged

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Delete the dataset, if it is there."""
        if DATASET not in staged:
            return
        try:
            with cohere_errors(f"dataset {staged[DATASET]} at Cohere"):
                self._client.datasets.delete(id=staged[DATASET])
        except NotFound:
            return

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the job over the record's dataset, None for none."""
        if DATASET not in record.staged:
            return None
        with cohere_errors("embed jobs at Cohere"):
            jobs = self._client.embed_jobs.list().embed_jobs or []
        for job in jobs:
            if job.input_dataset_id == record.staged[DATASET]:
                return _plain(job)
        return None

    def look(self, record: JobRecord) -> dict[str, Any]:
        """Return a job as Cohere tells it."""
        with cohere_errors(f"embed job {_id(record)} at Cohere"):
            return _plain(self._client.embed_jobs.get(id=_id(record)))

    def stop(self, record: JobRecord) -> None:
        """Cancel the job, unless it has ended."""

        def stop() -> None:
            with cohere_errors(f"embed job {_id(record)} at Cohere"):
                self._client.embed_jobs.cancel(id=_id(record))

        stop_if_live(lambda: self.look(record).get("status") in LIVE, stop)

    def _wait_until_valid(self, dataset: str, uri: str) -> None:
        give_up_at = self._clock() + VALIDATION_MOST_S
        while True:
            with cohere_errors(f"dataset {dataset} at Cohere"):
                found = self._client.datasets.get(id=dataset).dataset
            if found.validation_status == "validated":
                return
            if found.validation_status in {"failed", "skipped"}:
                raise ConfigError(f"{uri}: Cohere finds the dataset wrong: {found.validation_error}")
            if self._clock() >= give_up_at:
                raise RetriableError(f"dataset {dataset}: Cohere did not validate it in {VALIDATION_MOST_S:.0f} s")
            self._sleep(VALIDATION_POLL_S)


def _plain(job: EmbedJob) -> dict[str, Any]:
    return dict(job.model_dump(mode="json"))


def _id(record: JobRecord) -> str:
    known = record.remote_job.get("job_id")
    if known is None:
        raise NotFound(f"the record of job {record.name} names no embed job at Cohere")
    return str(known)
