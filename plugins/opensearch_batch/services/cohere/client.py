"""The client for Cohere's datasets and embed jobs: a shard is uploaded as a dataset, by which its job is found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RetriableError
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.record_ids import RECORD_ID
from opensearch_batch.services.clients import JobClient, local_copy
from opensearch_batch.services.cohere.adapter import DATASET
from opensearch_batch.services.cohere.errors import cohere_errors

if TYPE_CHECKING:
    from cohere import Client
    from cohere.types import EmbedJob

VALIDATION_POLL_S, VALIDATION_MOST_S = 2.0, 900.0


class CohereClient(JobClient):
    """Uploads shards as datasets; finds, describes and stops embed jobs.

    Args:
        api: a `cohere` client.
        objects: the store of the shards.
        clock, sleep: seconds; given by tests.
    """

    live = frozenset({"processing"})

    def __init__(
        self,
        api: Client,
        objects: Objects,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._objects = objects
        self._clock = clock
        self._sleep = sleep

    def stage(self, uri: str, name: str) -> dict[str, str]:
        """Upload a shard as a dataset and wait until Cohere has validated it.

        Raises:
            ConfigError: Cohere refuses the dataset.
        """
        with local_copy(self._objects, uri) as copy, cohere_errors(f"upload of {uri} to Cohere"):
            created = self._api.datasets.create(
                name=name, type="embed-input", data=(f"{name}.jsonl", copy), keep_fields=[RECORD_ID]
            )
        staged = {DATASET: str(created.id)}
        try:
            self._wait_until_valid(str(created.id), uri)
        except BatchError:
            # Nothing else names it, and an account may have only so many.
            with suppress(BatchError):
                self.unstage(staged)
            raise
        return staged

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Delete the dataset, if it is there."""
        if DATASET in staged:
            with suppress(NotFound), cohere_errors(f"dataset {staged[DATASET]} at Cohere"):
                self._api.datasets.delete(id=staged[DATASET])

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the job over the record's dataset, None for none."""
        if DATASET not in record.staged:
            return None
        with cohere_errors("embed jobs at Cohere"):
            jobs = self._api.embed_jobs.list().embed_jobs or []
        return next((_plain(job) for job in jobs if job.input_dataset_id == record.staged[DATASET]), None)

    def describe(self, record: JobRecord) -> dict[str, Any]:
        """Return the embed job."""
        with cohere_errors(f"embed job {_id(record)} at Cohere"):
            return _plain(self._api.embed_jobs.get(id=_id(record)))

    def cancel(self, record: JobRecord) -> None:
        """Cancel the embed job."""
        with cohere_errors(f"embed job {_id(record)} at Cohere"):
            self._api.embed_jobs.cancel(id=_id(record))

    def _wait_until_valid(self, dataset: str, uri: str) -> None:
        give_up_at = self._clock() + VALIDATION_MOST_S
        while True:
            with cohere_errors(f"dataset {dataset} at Cohere"):
                found = self._api.datasets.get(id=dataset).dataset
            if found.validation_status == "validated":
                return
            if found.validation_status in {"failed", "skipped"}:
                raise ConfigError(f"{uri}: Cohere refuses the dataset: {found.validation_error}")
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
