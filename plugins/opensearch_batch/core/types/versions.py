"""External versions of runs: the version of a later claim is higher, whatever the clocks of the workers.

A version is a time in milliseconds, followed by 20 bits of room. Another writer's `_update` raises the version of its
document by one; the room keeps such a document below the version of the next run.
"""

from __future__ import annotations

ROOM_BITS = 20
# OpenSearch's versions have 63 bits. Times after the year 2109 count as that time, and leave as many versions again.
LAST_MS = 1 << 42


def next_version(at_s: float, *, after: int = 0) -> int:
    """Return the version of a claim after that of the last claim in the same scope (0 if there is none).

    `at_s` is the start of the partition's interval, or else the time at which the run lists its source (epoch seconds).
    """
    at_ms = min(max(int(at_s * 1000), 0), LAST_MS)
    return max(at_ms << ROOM_BITS, after + (1 << ROOM_BITS))
