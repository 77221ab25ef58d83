"""Checks whether a pipeline name is a valid DAG id. Airflow's own error would name neither file nor remedy.

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


def invalid_reason(name: str) -> str | None:
    """Return the reason why a name is not a valid DAG id, and a remedy; None if the name is valid."""
    if is_dag_id(name):
        return None
    suggestion = _FORBIDDEN.sub("-", name).strip("-")
    remedy = f"write {suggestion}" if is_dag_id(suggestion) else "choose a shorter name"
    return f"a DAG id has at most {MAX_LENGTH} letters, digits, _, - and .; {remedy}"
