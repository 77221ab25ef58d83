"""Client for OpenAI's files and batches: each shard is uploaded as a file, which identifies its batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from opensearch_batch.core.errors import ConfigError, NotFound, RetriableError
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.services.clients import JobClient, local_copy, remote_id
from opensearch_batch.services.errors import error_of
from opensearch_batch.services.openai.adapter import FILE, OpenAIAdapter

if TYPE_CHECKING:
    from openai import OpenAI

PAGE = 100
# A batch is created after the intent to submit it, but OpenAI's clock may be behind by this much.
CLOCK_SKEW_S = 3600.0


@contextmanager
def openai_errors(what: str) -> Iterator[None]:
    """Convert errors of the `openai` client as `error_of` does; if OpenAI does not respond, raise RetriableError.

    A spent budget is converted to ConfigError, although its status is 429.
    """
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        if error.code in OpenAIAdapter.errors.refuse:
            raise ConfigError(f"{what}: OpenAI answered {error.code}; raise the account's budget at OpenAI") from None
        raise error_of(what, "OpenAI", error.status_code) from None
    except openai.APIConnectionError:
        raise RetriableError(f"{what}: OpenAI does not answer; run again later") from None


class OpenAIClient(JobClient):
    """Uploads shards, which it reads from `objects`, as files; finds, describes and stops batches."""

    live = frozenset({"validating", "in_progress", "finalizing"})

    def __init__(self, api: OpenAI, objects: Objects) -> None:
        self._api = api
        self._objects = objects

    def stage(self, uri: str, name: str) -> dict[str, str]:
        """Upload a shard as a file for batches; each job has its own file, which identifies its batch."""
        with openai_errors(f"upload of {uri} to OpenAI"), local_copy(self._objects, uri) as copy:
            return {FILE: self._api.files.create(file=(f"{name}.jsonl", copy), purpose="batch").id}

    def unstage(self, staged: Mapping[str, str]) -> None:
        if FILE in staged:
            with suppress(NotFound), openai_errors(f"file {staged[FILE]} at OpenAI"):
                self._api.files.delete(staged[FILE])

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the newest batch over the record's file, None if there is none."""
        if FILE not in record.staged:
            return None
        with openai_errors("batches at OpenAI"):
            # Batches are listed newest first.
            for batch in self._api.batches.list(limit=PAGE):
                if batch.input_file_id == record.staged[FILE]:
                    return dict(batch.to_dict())
                if batch.created_at < record.intended_at - CLOCK_SKEW_S:
                    return None
        return None

    def describe(self, record: JobRecord) -> dict[str, Any]:
        batch_id = remote_id(record, "id")
        with openai_errors(f"batch {batch_id} at OpenAI"):
            return dict(self._api.batches.retrieve(batch_id).to_dict())

    def cancel(self, record: JobRecord) -> None:
        batch_id = remote_id(record, "id")
        with openai_errors(f"batch {batch_id} at OpenAI"):
            self._api.batches.cancel(batch_id)
