"""Checks that a pipeline name is a valid DAG id, before Airflow refuses it.

Source: `validate_key` of Airflow's Task SDK (3.x), which accepts letters of any alphabet.
"""

from __future__ import annotations

import re

MAX_LENGTH = 250
_ID = re.compile(rf"[\w.-]{{1,{MAX_LENGTH}}}")
_FORBIDDEN = re.compile(r"[^\w.-]+")


def is_dag_id(name: str) -> bool:
    """Return whether a name is a valid DAG id."""
    return _ID.fullmatch(name) is not None


def refusal_of(name: str) -> str | None:
    """Return why a name is not a valid DAG id, with the remedy; None if it is valid."""
    if is_dag_id(name):
        return None
    near = _FORBIDDEN.sub("-", name).strip("-")
    instead = f"write {near}" if is_dag_id(near) else "choose a shorter name"
    return f"a DAG id has at most {MAX_LENGTH} letters, digits, _, - and .; {instead}"
