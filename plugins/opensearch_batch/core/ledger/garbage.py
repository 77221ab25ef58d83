"""Two-phase garbage collection: a file that no head names is marked with the time, and deleted after a grace period.

The marks are in the head that may name the file, which is replaced by compare-and-swap. So a run that names a marked
file and a collection that deletes it cannot both succeed:

1. A file is written before a head names it, by a process that gave it a name of its own.
2. A collection marks, under one version of the head, the files that this version does not name. It deletes only files
   that were marked for `GRACE_S` under the version that it has just read or written.
3. A process that names a file removes its mark. If the mark is older than `LATE_S`, it must not name the file.

A reader holds the names of a head that it has read. It ends before a file that was named then can be deleted, because
no task of a run lasts for `GRACE_S`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from opensearch_batch.core.types.job import DEADLINE_S

# Longer than any run: its jobs, and then their repair, end before.
GRACE_S = 2 * DEADLINE_S
# The rest of the grace period is for clocks that differ.
LATE_S = GRACE_S / 2


def with_marks(
    marks: Mapping[str, float], files: Iterable[str], named: Container[str], *, now: float
) -> dict[str, float]:
    """Return the marks of those of the existing files that are not named; a file that was marked keeps its time."""
    return {name: marks.get(name, now) for name in files if name not in named}


def expired(marks: Mapping[str, float], *, now: float, grace_s: float = GRACE_S) -> list[str]:
    """Return the files that were marked for the grace period."""
    return [name for name, since in marks.items() if now - since >= grace_s]


def named_too_late(marks: Mapping[str, float], named: Container[str], *, now: float) -> list[str]:
    """Return the named files that a collection may be about to delete."""
    return [name for name in expired(marks, now=now, grace_s=LATE_S) if name in named]
