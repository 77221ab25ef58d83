"""The client for OpenAI's files and batches: a shard is uploaded as a file, and its batch is found by that file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opensearch_batch.core.errors import NotFound
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.services.clients import JobClient, local_copy
from opensearch_batch.services.openai.adapter import FILE
from opensearch_batch.services.openai.errors import openai_errors

if TYPE_CHECKING:
    from openai import OpenAI

PAGE = 100
# Clocks differ; a batch cannot be much older than the intent to submit it.
EARLIER_S = 3600.0


class OpenAIClient(JobClient):
    """Uploads shards as files; finds, describes and stops batches.

    Args:
        api: an `openai` client.
        objects: the store of the shards.
    """

    live = frozenset({"validating", "in_progress", "finalizing"})

    def __init__(self, api: OpenAI, objects: Objects) -> None:
        self._api = api
        self._objects = objects

    def stage(self, uri: str, name: str) -> dict[str, str]:
        """Upload a shard as a file for batches; each job has a file of its own, by which its batch is found."""
        with openai_errors(f"upload of {uri} to OpenAI"), local_copy(self._objects, uri) as copy:
            return {FILE: self._api.files.create(file=(f"{name}.jsonl", copy), purpose="batch").id}

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Delete the file, if it is there."""
        if FILE in staged:
            with suppress(NotFound), openai_errors(f"file {staged[FILE]} at OpenAI"):
                self._api.files.delete(staged[FILE])

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the newest batch over the record's file, None for none."""
        if FILE not in record.staged:
            return None
        with openai_errors("batches at OpenAI"):
            # The newest is listed first.
            for batch in self._api.batches.list(limit=PAGE):
                if batch.input_file_id == record.staged[FILE]:
                    return dict(batch.to_dict())
                if batch.created_at < record.intended_at - EARLIER_S:
                    return None
        return None

    def describe(self, record: JobRecord) -> dict[str, Any]:
        """Return the batch."""
        with openai_errors(f"batch {_id(record)} at OpenAI"):
            return dict(self._api.batches.retrieve(_id(record)).to_dict())

    def cancel(self, record: JobRecord) -> None:
        """Cancel the batch."""
        with openai_errors(f"batch {_id(record)} at OpenAI"):
            self._api.batches.cancel(_id(record))


def _id(record: JobRecord) -> str:
    known = record.remote_job.get("id")
    if known is None:
        raise NotFound(f"the record of job {record.name} names no batch at OpenAI")
    return str(known)
