"""What tests read back: values that must be there, objects of a store, and a run's dead letters."""

from __future__ import annotations

from typing import TypeVar

from opensearch_batch.core.storage.dead_letters import DeadLetter, list_parts, read_letters
from opensearch_batch.core.storage.objects import Objects

T = TypeVar("T")


def present(value: T | None) -> T:
    """Return a value that must not be None."""
    assert value is not None
    return value


def content(store: Objects, uri: str) -> bytes:
    """Return the content of an object, which must exist."""
    return present(store.read(uri)).content


def dead_letters(store: Objects, prefix: str | None) -> list[DeadLetter]:
    """Return the dead letters below the prefix that a report names; one without dead letters names none."""
    return [letter for part in list_parts(store, prefix) for letter in read_letters(store, part)] if prefix else []
