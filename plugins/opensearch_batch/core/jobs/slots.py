"""At most so many jobs are in flight, across runs and restarts: a job needs a slot before it is submitted.

Slots are objects below ``<work>/<pipeline>/slots/<service and model>/``, taken by conditional writes. A slot whose
holder is no longer at work is taken over, so nothing has to be told when a process or a run dies.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

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
        self._objects = objects
        self._folder = folder.rstrip("/")
        self._most = most
        self._is_at_work = is_at_work
        self._clock = clock

    def take(self, holder: str) -> bool:
        """Take a slot for a job, or find the one it has; False when others hold all."""
        slots = [self._read(number) for number in range(self._most)]
        mine = msgspec.json.encode(Slot(holder, self._clock()))
        for number, found in enumerate(slots):
            # Held anew, so that nobody takes it over while its holder is about to submit.
            if found and found[0].holder == holder and self._objects.replace(self._uri(number), mine, etag=found[1]):
                return True
        for number, found in enumerate(slots):
            uri = self._uri(number)
            if found is None:
                taken = self._objects.create(uri, mine)
            else:
                taken = not self._is_held(found[0]) and self._objects.replace(uri, mine, etag=found[1])
            if taken:
                return True
        return False

    def give_back(self, holder: str) -> None:
        """Free the slot of a job, if it has one."""
        for number in range(self._most):
            found = self._read(number)
            if found is not None and found[0].holder == holder:
                self._objects.replace(self._uri(number), msgspec.json.encode(Slot()), etag=found[1])

    def _is_held(self, slot: Slot) -> bool:
        if slot.holder == FREE:
            return False
        at_work = self._is_at_work(slot)
        return self._clock() < slot.at + GRACE_S if at_work is None else at_work

    def _read(self, number: int) -> tuple[Slot, str] | None:
        stored = self._objects.read(self._uri(number))
        return None if stored is None else (msgspec.json.decode(stored.content, type=Slot), stored.etag)

    def _uri(self, number: int) -> str:
        return f"{self._folder}/{number:04d}.json"
