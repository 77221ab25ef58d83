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
    """Record that an unfinished run uses the job in this folder.

    The write may overwrite an earlier mark: the last use by a successful run is stored in another file (`used.json`).
    """
    save(objects, f"{folder}/{IN_USE}", LastUse(now))
