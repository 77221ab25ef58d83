"""Ids of what is computed. A job that is computed again after a kill gives the same, and so replaces, not doubles."""

import hashlib


def digest(*parts: str) -> str:
    """Return an id that is the same for the same parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
