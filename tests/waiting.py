"""Timeouts and polling of tests. The timeouts are long, so that no test fails because a machine is slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# The timeout for anything that usually takes seconds. Only a failing test waits this long.
WAIT_S = 300.0


def eventually(poll: Callable[[], T | None], what: str, *, wait_s: float = WAIT_S) -> T:
    """Call `poll` until it returns a true value; return the value, or fail with the text `what` after `wait_s`."""
    give_up_at, pause_s = time.monotonic() + wait_s, 0.02
    while time.monotonic() < give_up_at:
        if value := poll():
            return value
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, 0.2)
    raise AssertionError(f"{what}: not within {wait_s:.0f} s")
