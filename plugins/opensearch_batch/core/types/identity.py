"""Stable keys and digests of strings."""

from __future__ import annotations

import hashlib

KEY_HEX_DIGITS = 32


def run_key(dag_id: str, run: str) -> str:
    """Return the key of a run; `run` is its partition key, else its logical date, else its run id."""
    return digest(dag_id, run)


def digest(*parts: str) -> str:
    """Return a short stable hash of strings; NUL separates them, so that it is unambiguous."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_HEX_DIGITS]
