"""Notes that a run uses a job's files, so that no other run removes them."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.objects import Objects


class Used(msgspec.Struct, frozen=True):
    """When a run last used a job's files (epoch seconds)."""

    at: float


def note_taken(objects: Objects, folder: str, *, now: float) -> None:
    """Note that a run has taken a job, so that no other run removes its files before this one has used them.

    One write and nothing read: `used.json`, which may say for ever, is another file.
    """
    save(objects, f"{folder}/taken.json", Used(now))
