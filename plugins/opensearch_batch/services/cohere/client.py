"""Client for Cohere's datasets and embed jobs: each shard is uploaded as a dataset, which identifies its job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RetriableError
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.record_ids import RECORD_ID
from opensearch_batch.services.clients import JobClient, local_copy, remote_id
from opensearch_batch.services.cohere.adapter import DATASET
from opensearch_batch.services.errors import error_of

if TYPE_CHECKING:
    from cohere import Client
    from cohere.types import EmbedJob

VALIDATION_POLL_S, VALIDATION_TIMEOUT_S = 2.0, 900.0


@contextmanager
def cohere_errors(what: str) -> Iterator[None]:
    """Convert errors of the `cohere` client as `error_of` does, and a missing response to RetriableError."""
    import httpx
    from cohere.core import ApiError

    try:
        yield
    except ApiError as error:
        raise error_of(what, "Cohere", error.status_code or 0) from None
    except httpx.HTTPError as error:
        raise RetriableError(f"{what}: Cohere does not answer ({type(error).__name__}); run again later") from None


class CohereClient(JobClient):
    """Uploads shards, which it reads from `objects`, as datasets; finds, describes and stops embed jobs."""

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
        """Upload a shard as a dataset and wait until it is validated; raise ConfigError if Cohere rejects it."""
        with local_copy(self._objects, uri) as copy, cohere_errors(f"upload of {uri} to Cohere"):
            created = self._api.datasets.create(
                name=name, type="embed-input", data=(f"{name}.jsonl", copy), keep_fields=[RECORD_ID]
            )
        staged = {DATASET: str(created.id)}
        try:
            self._wait_until_valid(str(created.id), uri)
        except BatchError:
            # No job record names this dataset, and the number of datasets per account is limited.
            with suppress(BatchError):
                self.unstage(staged)
            raise
        return staged

    def unstage(self, staged: Mapping[str, str]) -> None:
        if DATASET in staged:
            with suppress(NotFound), cohere_errors(f"dataset {staged[DATASET]} at Cohere"):
                self._api.datasets.delete(id=staged[DATASET])

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        if DATASET not in record.staged:
            return None
        with cohere_errors("embed jobs at Cohere"):
            jobs = self._api.embed_jobs.list().embed_jobs or []
        return next((_plain(job) for job in jobs if job.input_dataset_id == record.staged[DATASET]), None)

    def describe(self, record: JobRecord) -> dict[str, Any]:
        job_id = remote_id(record, "job_id")
        with cohere_errors(f"embed job {job_id} at Cohere"):
            return _plain(self._api.embed_jobs.get(id=job_id))

    def cancel(self, record: JobRecord) -> None:
        job_id = remote_id(record, "job_id")
        with cohere_errors(f"embed job {job_id} at Cohere"):
            self._api.embed_jobs.cancel(id=job_id)

    def _wait_until_valid(self, dataset_id: str, uri: str) -> None:
        deadline = self._clock() + VALIDATION_TIMEOUT_S
        while True:
            with cohere_errors(f"dataset {dataset_id} at Cohere"):
                dataset = self._api.datasets.get(id=dataset_id).dataset
            if dataset.validation_status == "validated":
                return
            if dataset.validation_status in {"failed", "skipped"}:
                raise ConfigError(f"{uri}: Cohere rejected the dataset: {dataset.validation_error}")
            if self._clock() >= deadline:
                raise RetriableError(
                    f"dataset {dataset_id}: Cohere did not validate it in {VALIDATION_TIMEOUT_S:.0f} s"
                )
            self._sleep(VALIDATION_POLL_S)


def _plain(job: EmbedJob) -> dict[str, Any]:
    return dict(job.model_dump(mode="json"))
