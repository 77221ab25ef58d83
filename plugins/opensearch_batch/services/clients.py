"""Base class and helpers for the clients of AI services."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, ClassVar

from opensearch_batch.core.errors import ConfigError, FatalError, NotFound
from opensearch_batch.core.jobs.contract import ServiceClient
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.job import JobRecord


class JobClient(ServiceClient, ABC):
    """Base of a `ServiceClient`; by default the service reads its input from S3 and nothing is uploaded."""

    # A job can be stopped while this member of its description has one of the `live` values.
    status_member: ClassVar[str] = "status"
    live: ClassVar[frozenset[str]]

    def stage(self, uri: str, name: str) -> dict[str, str]:  # noqa: ARG002 - the protocol's parameters
        """Return ``{}``: the service reads the shard from S3."""
        return {}

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Do nothing: `stage` uploads nothing."""

    @abstractmethod
    def cancel(self, record: JobRecord) -> None:
        """Ask the service to stop the job."""

    def stop(self, record: JobRecord) -> None:
        """Stop the job if it is live; an error response is ignored if the job has ended meanwhile."""
        if not self._is_live(record):
            return
        try:
            self.cancel(record)
        except (ConfigError, FatalError):
            if self._is_live(record):
                raise

    def _is_live(self, record: JobRecord) -> bool:
        return self.describe(record).get(self.status_member) in self.live


def remote_id(record: JobRecord, member: str) -> str:
    """Return the job's id from a member of its remote job; raise NotFound if the id is not known yet."""
    if (job_id := record.remote_job.get(member)) is None:
        raise NotFound(f"job {record.name}: no {member} is known")
    return str(job_id)


@contextmanager
def local_copy(objects: Objects, uri: str) -> Iterator[IO[bytes]]:
    """Open a copy of an object for an upload; a small copy is held in memory."""
    with Spool() as spool:
        with objects.open(uri) as stream:
            shutil.copyfileobj(stream, spool, 1 << 20)
        spool.seek(0)
        yield spool
