"""How long tests wait: no verdict depends on the speed of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# For whatever should take seconds: an answer, a state, the end of a process. Only a failing test waits so long.
WAIT_S = 300.0


def eventually(look: Callable[[], T | None], what: str, *, wait_s: float = WAIT_S) -> T:
    """Call `look` until it returns something true, and return that."""
    give_up_at, pause_s = time.monotonic() + wait_s, 0.02
    while time.monotonic() < give_up_at:
        if found := look():
            return found
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, 0.2)
    raise AssertionError(f"{what}: not within {wait_s:.0f} s")
