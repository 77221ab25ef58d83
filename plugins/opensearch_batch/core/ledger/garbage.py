"""Two-phase garbage collection: a file that no head names is marked with the time, and deleted after a grace period.

The marks are in the head that may name the file, which is replaced by compare-and-swap:

1. A process writes a file under a unique name that contains the time. Only this process names the file in a head, and
   at most `LATE_S` after it wrote it.
2. A collection marks, under one version of the head, the files that this version does not name. It deletes only files
   that were marked for `GRACE_S` under the version that it has just read or written.
3. A head that names a file has no mark of it.

So a file that is deleted is too old to be named, however long a process paused and whatever its marks were. The clocks
of processes may differ by the rest of the grace period. A reader holds the names of a head that it has read. It ends
before a file that was named then can be deleted, because a task ends after `task_timeout_s`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Self

import msgspec

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.storage.head_document import NumberedHead
from opensearch_batch.core.types.job import DEADLINE_S

# The jobs of a run, and then their repair, end in this time, unless they wait for slots.
GRACE_S = 2 * DEADLINE_S
LATE_S = GRACE_S / 2
_NAME = re.compile(r"(?:.*/)?([0-9a-f]{12})-[0-9a-f]{32}(?:\.\w+)?")


def new_name(digest: str, *, now: float) -> str:
    """Return the name of a file that is written now; no other process uses it for another content."""
    return f"{int(now * 1000):012x}-{digest}"


def written_at(name: str) -> float | None:
    """Return the time in the name of a file, with or without folder and extension; None if there is no time in it."""
    match = _NAME.fullmatch(name)
    return int(match[1], 16) / 1000 if match else None


class MarkedHead(NumberedHead, frozen=True, omit_defaults=True):
    """Base of the heads that name files: `garbage` has the files that it does not name, with the time of their mark."""

    garbage: dict[str, float] = msgspec.field(default_factory=dict)

    def files(self) -> set[str]:
        """Implement in a subclass: return the files that the head names."""
        raise NotImplementedError

    def with_garbage(self, files: Iterable[str], *, now: float) -> Self:
        """Return the head with marks of the existing files that it does not name; a marked file keeps its time.

        Files that this package did not name are left alone.
        """
        named = self.files()
        garbage = (name for name in files if name not in named and written_at(name) is not None)
        return msgspec.structs.replace(self, garbage={name: self.garbage.get(name, now) for name in garbage})

    def expired(self, *, now: float, grace_s: float = GRACE_S) -> list[str]:
        """Return the files that were marked for the grace period."""
        return [name for name, since in self.garbage.items() if now - since >= grace_s]

    def after(self, before: Self, *, now: float) -> Self:
        """Return the head without marks of files that it names.

        Raises:
            RetriableError: it names a file that the head before did not, and that was written too long ago.
        """
        named = self.files()
        for name in named - before.files():
            if (written := written_at(name)) is not None and now - written >= LATE_S:
                raise RetriableError(
                    f"{name}: this process wrote the file so long ago that garbage collection may delete it; the retry "
                    "writes it again"
                )
        marks = {name: since for name, since in self.garbage.items() if name not in named}
        return msgspec.structs.replace(self, garbage=marks)
