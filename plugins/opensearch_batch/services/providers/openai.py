"""OpenAI's own API: a shard is uploaded as a file, and its batch is known by that file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opensearch_batch.core.errors import ConfigError, FatalError, NotFound, RetriableError, Throttled
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.services.openai import FILE
from opensearch_batch.services.openai import OpenAI as Adapter
from opensearch_batch.services.providers.stopping import stop_if_live

if TYPE_CHECKING:
    from openai import OpenAI

SPOOL_BYTES = 16 << 20
PAGE = 100
# Clocks differ; a batch cannot be much older than the intent to submit it.
EARLIER_S = 3600.0
LIVE = frozenset({"validating", "in_progress", "finalizing"})


class OpenAIProvider:
    """Files and batches.

    Args:
        client: an `openai` client.
        objects: where the shards lie.
    """

    def __init__(self, client: OpenAI, objects: Objects) -> None:
        self._client = client
        self._objects = objects

    def stage(self, uri: str, name: str) -> dict[str, str]:
        """Upload a shard as a file for batches; memory is bounded whatever its size."""
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool, _errors(f"upload of {uri} to OpenAI"):
            with self._objects.open(uri) as stream:
                shutil.copyfileobj(stream, spool, 1 << 20)
            spool.seek(0)
            # A file of its own for each job: the batch is found again by it.
            created = self._client.files.create(file=(f"{name}.jsonl", spool), purpose="batch")
            return {FILE: created.id}

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Delete the file, if it is there."""
        if FILE not in staged:
            return
        try:
            with _errors(f"file {staged[FILE]} at OpenAI"):
                self._client.files.delete(staged[FILE])
        except NotFound:
            return

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the newest batch over the record's file, None for none."""
        if FILE not in record.staged:
            return None
        with _errors("batches at OpenAI"):
            # They come newest first.
            for batch in self._client.batches.list(limit=PAGE):
                if batch.input_file_id == record.staged[FILE]:
                    return dict(batch.to_dict())
                if batch.created_at < record.intended_at - EARLIER_S:
                    return None
        return None

    def look(self, record: JobRecord) -> dict[str, Any]:
        """Return a batch as OpenAI tells it."""
        with _errors(f"batch {_id(record)} at OpenAI"):
            return dict(self._client.batches.retrieve(_id(record)).to_dict())

    def stop(self, record: JobRecord) -> None:
        """Cancel the batch, unless it has ended."""

        def stop() -> None:
            with _errors(f"batch {_id(record)} at OpenAI"):
                self._client.batches.cancel(_id(record))

        stop_if_live(lambda: self.look(record).get("status") in LIVE, stop)


def _id(record: JobRecord) -> str:
    known = record.remote_job.get("id")
    if known is None:
        raise NotFound(f"the record of job {record.name} names no batch at OpenAI")
    return str(known)


@contextmanager
def _errors(place: str) -> Iterator[None]:
    """Explain what the client says; its messages may quote the key, so they are not repeated."""
    import openai

    try:
        yield
    except openai.NotFoundError:
        raise NotFound(f"{place}: OpenAI knows nothing of this name") from None
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        raise ConfigError(f"{place}: OpenAI refuses the key; mend the connection") from None
    except openai.RateLimitError as error:
        if error.code in Adapter.errors.refuse:
            raise ConfigError(f"{place}: OpenAI answers {error.code}; raise the account's budget there") from None
        raise Throttled(f"{place}: OpenAI answered 429") from None
    except openai.InternalServerError as error:
        raise RetriableError(f"{place}: OpenAI answered {error.status_code}; run again later") from None
    except openai.APIStatusError as error:
        raise FatalError(f"{place}: OpenAI refuses it ({error.status_code}); no retry helps") from None
    except openai.APIConnectionError:
        raise RetriableError(f"{place}: OpenAI does not answer; run again later") from None
