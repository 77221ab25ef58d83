"""Counts of dead letters by reason, each with one example."""

from __future__ import annotations

import msgspec


class LetterReason(msgspec.Struct, frozen=True, omit_defaults=True):
    """The dead letters of one kind of reason, in which numbers and quoted values do not count.

    `count` letters have it. The others describe the first of them: its whole `reason`, its stage, the `source` and the
    `line` of its record, its document `id` if it is known, and the first characters of the `record`. The text `reason`
    is empty for the letters of kinds beyond the number that is kept.
    """

    count: int
    reason: str = ""
    stage: str = ""
    source: str = ""
    line: int = 0
    id: str | None = None
    record: str = ""
