"""Counts of dead letters by reason, each with one example."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

# Further kinds of reasons are counted together.
MAX_KINDS = 20
# The parts of a reason that vary between records: numbers and quoted values.
_VARYING = re.compile(r"""\d+|'[^']*'|"[^"]*\"""")


class LetterReason(msgspec.Struct, frozen=True):
    """The dead letters of one kind of reason, in which numbers and quoted values do not count.

    `count` letters have it. The others describe the first of them: the start of its `reason`, its `stage`, the `source`
    and the `line` of its record, its document's `id` if that is known, and the start of the `record`. The text `reason`
    is empty for the letters of all kinds beyond `MAX_KINDS`.
    """

    count: int
    reason: str = ""
    stage: str = ""
    source: str = ""
    line: int = 0
    id: str | None = None
    record: str = ""


def kind_of(reason: str) -> str:
    """Return a reason without numbers and quoted values, which vary between records."""
    return _VARYING.sub("", reason)


def add_up_reasons(reasons: Iterable[LetterReason]) -> list[LetterReason]:
    """Return one entry for each kind of reason, the most common first; at most `MAX_KINDS`, and one for all others."""
    by_kind = dict[str, LetterReason]()
    for each in reasons:
        kind = kind_of(each.reason)
        first = by_kind.get(kind)
        by_kind[kind] = each if first is None else msgspec.structs.replace(first, count=first.count + each.count)
    others = by_kind.pop("", LetterReason(0)).count
    ordered = sorted(by_kind.values(), key=lambda each: -each.count)
    others += sum(each.count for each in ordered[MAX_KINDS:])
    return [*ordered[:MAX_KINDS], *([LetterReason(others)] if others else [])]
