"""At most so many jobs are in flight, across runs and restarts: a job needs a slot before it is submitted.

Slots are objects below ``<work_prefix>/<pipeline>/slots/<service and model>/``, taken by conditional writes. A slot
whose holder is no longer at work is taken over, so nothing has to be told when a process or a run dies.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects

FREE = ""
# A holder without a job may still be on its way to submit: uploads and the paid call lie in between.
GRACE_S = 900.0


class Slot(msgspec.Struct, frozen=True):
    """Who holds a slot (the folder of a job; empty when it was given back), and since when (epoch seconds)."""

    holder: str = FREE
    at: float = 0.0


class Slots:
    """The slots of one pipeline and model.

    Args:
        objects: where they lie.
        folder: names them.
        most: how many there are.
        is_at_work: says of a slot whether its holder's job is in flight; None when it has no job yet.
        clock: epoch seconds.
    """

    def __init__(
        self,
        objects: Objects,
        folder: str,
        *,
        most: int,
        is_at_work: Callable[[Slot], bool | None],
        clock: Callable[[], float],
    ) -> None:
        uris = (f"{folder.rstrip('/')}/{number:04d}.json" for number in range(most))
        self._slots = [JsonDocument(objects, uri, Slot) for uri in uris]
        self._is_at_work = is_at_work
        self._clock = clock

    def take(self, holder: str) -> bool:
        """Take a slot for a job, or find the one it has; False when others hold all."""
        slots = [(slot, slot.load()) for slot in self._slots]
        mine = Slot(holder, self._clock())
        for slot, found in slots:
            # Renewed, so that no other job takes it over while its holder is about to submit.
            if found and found.value.holder == holder and slot.swap(mine, etag=found.etag):
                return True
        for slot, found in slots:
            if found and self._is_held(found.value):
                continue
            if slot.swap(mine, etag=found and found.etag):
                return True
        return False

    def give_back(self, holder: str) -> None:
        """Free the slot of a job, if it has one."""
        for slot in self._slots:
            found = slot.load()
            if found and found.value.holder == holder:
                slot.swap(Slot(), etag=found.etag)

    def _is_held(self, slot: Slot) -> bool:
        if slot.holder == FREE:
            return False
        at_work = self._is_at_work(slot)
        return self._clock() < slot.at + GRACE_S if at_work is None else at_work
