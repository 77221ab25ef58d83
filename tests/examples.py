"""How many examples a property test tries: all of them with all tests, a fifth of them in `make test`."""

from __future__ import annotations

# Set before the tests are collected.
SHARE = {"of": 1.0}


def examples(count: int) -> int:
    """Return the share of a number of examples that this run tries."""
    return max(20, int(count * SHARE["of"]))
