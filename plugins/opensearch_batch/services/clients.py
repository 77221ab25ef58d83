"""What the clients of AI services share."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, ClassVar

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord

SPOOL_BYTES = 16 << 20


class JobClient(ABC):
    """The client of a service that reads its input from S3. Base of a `ServiceClient`."""

    # A job that can be stopped has one of these in this member of its description.
    status_member: ClassVar[str] = "status"
    live: ClassVar[frozenset[str]]

    def stage(self, uri: str, name: str) -> dict[str, str]:  # noqa: ARG002 - the protocol's
        """Upload nothing."""
        return {}

    def unstage(self, staged: Mapping[str, str]) -> None:  # noqa: B027 - nothing was uploaded
        """Remove nothing."""

    @abstractmethod
    def describe(self, record: JobRecord) -> dict[str, Any]:
        """Return the job as the service describes it now."""

    @abstractmethod
    def cancel(self, record: JobRecord) -> None:
        """Call the service to stop the job."""

    def stop(self, record: JobRecord) -> None:
        """Stop the job if it is live; a refusal counts only if the job is still live after it."""
        if not self._is_live(record):
            return
        try:
            self.cancel(record)
        except (ConfigError, FatalError):
            if self._is_live(record):
                raise

    def _is_live(self, record: JobRecord) -> bool:
        return self.describe(record).get(self.status_member) in self.live


@contextmanager
def local_copy(objects: Objects, uri: str) -> Iterator[IO[bytes]]:
    """Open a copy of an object for an upload: in memory up to a bound, else in a temporary file."""
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
        with objects.open(uri) as stream:
            shutil.copyfileobj(stream, spool, 1 << 20)
        spool.seek(0)
        yield spool
