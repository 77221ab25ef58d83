"""Creates stable keys of runs and digests of strings."""

from __future__ import annotations

import hashlib

KEY_HEX_DIGITS = 32


def run_key(dag_id: str, run_id: str) -> str:
    """Return the key of a run."""
    return digest(dag_id, run_id)


def digest(*parts: str) -> str:
    """Return a short stable hash of strings.

    The strings are joined with NUL, so that different lists of strings do not have the same hash.
    """
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_HEX_DIGITS]
