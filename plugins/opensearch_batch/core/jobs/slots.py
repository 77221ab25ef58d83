"""Limits the jobs in flight across runs and restarts: a job acquires a slot before it is submitted.

Slots are objects below ``<work_prefix>/<pipeline>/slots/<digest of service and model>/``, acquired by conditional
writes. A slot whose job is no longer in flight is taken over, so nothing has to be cleaned up after a process dies.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects

FREE = ""
# How long a holder keeps its slot while its job is not submitted yet: the task uploads the input and calls the service.
GRACE_S = 900.0
# How much longer than its deadline a job may hold its slot: the upload, throttled calls and the last polls take time.
STALL_MARGIN_S = 3600.0


class Slot(msgspec.Struct, frozen=True):
    """The holder of a slot (the folder of a job; empty: free), and when it acquired or renewed it (epoch seconds)."""

    holder: str = FREE
    at: float = 0.0


class Slots:
    """The slots of one pipeline and model; `is_in_flight` returns None for a job that is not submitted yet."""

    def __init__(
        self,
        objects: Objects,
        folder: str,
        *,
        max_slots: int,
        is_in_flight: Callable[[Slot], bool | None],
        clock: Callable[[], float],
    ) -> None:
        uris = (f"{folder.rstrip('/')}/{number:04d}.json" for number in range(max_slots))
        self._slots = [JsonDocument(objects, uri, Slot) for uri in uris]
        self._is_in_flight = is_in_flight
        self._clock = clock

    def acquire(self, *holders: str) -> set[str]:
        """Acquire slots for jobs, the first ones first, or renew those that they hold; return the jobs with a slot."""
        slots = [(slot, slot.load()) for slot in self._slots]
        acquired = set[str]()
        for slot, stored in slots:
            # Renew the slot, so that no other job takes it over while this job is about to be submitted.
            if stored and stored.value.holder in holders and self._take(slot, stored.value.holder, stored.etag):
                acquired.add(stored.value.holder)
        lacking = [holder for holder in holders if holder not in acquired]
        for slot, stored in slots:
            if not lacking:
                break
            if stored and (stored.value.holder in acquired or self._is_held(stored.value)):
                continue
            if self._take(slot, lacking[0], stored and stored.etag):
                acquired.add(lacking.pop(0))
        return acquired

    def release(self, *holders: str) -> None:
        """Release the slots of jobs, if they hold some."""
        for slot in self._slots:
            stored = slot.load()
            if stored and stored.value.holder in holders:
                slot.swap(Slot(), etag=stored.etag)

    def held(self) -> list[tuple[str, Slot]]:
        """Return the URIs and contents of the slots that are held."""
        slots = ((document.uri, document.read()) for document in self._slots)
        return [(uri, slot) for uri, slot in slots if slot is not None and self._is_held(slot)]

    def are_stalled(self, after_s: float) -> bool:
        """Return whether all slots are held, and none was acquired or renewed within the last `after_s` seconds."""
        held = self.held()
        return len(held) == len(self._slots) and max(slot.at for _, slot in held) <= self._clock() - after_s

    def holders(self) -> str:
        """Return the held slots and their holders as a text for messages."""
        return "; ".join(f"{uri} is held by {slot.holder}" for uri, slot in self.held())

    def _take(self, slot: JsonDocument[Slot], holder: str, etag: str | None) -> bool:
        return slot.swap(Slot(holder, self._clock()), etag=etag)

    def _is_held(self, slot: Slot) -> bool:
        if slot.holder == FREE:
            return False
        in_flight = self._is_in_flight(slot)
        return self._clock() < slot.at + GRACE_S if in_flight is None else in_flight
