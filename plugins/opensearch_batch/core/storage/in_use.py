"""Marks a job's files as in use by a run, so that the retention of another run does not delete them."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.objects import Objects

IN_USE = "in_use.json"


class LastUse(msgspec.Struct, frozen=True):
    """When a run last used a job's files (epoch seconds)."""

    at: float


def mark_in_use(objects: Objects, folder: str, *, now: float) -> None:
    """Record that a run uses the job in this folder and has not finished with it.

    One write without a read: the last finished use, which may be kept for ever, is another file (`used.json`).
    """
    save(objects, f"{folder}/{IN_USE}", LastUse(now))
