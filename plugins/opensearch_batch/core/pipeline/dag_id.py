"""A pipeline's name is its DAG's id, and Airflow takes no other characters in one than these; told before it does.

Source: validate_key of Airflow's Task SDK (3.x), whose letters are those of any alphabet.
"""

from __future__ import annotations

import re

MAX_LENGTH = 250
_ID = re.compile(rf"[\w.-]{{1,{MAX_LENGTH}}}")
_FORBIDDEN = re.compile(r"[^\w.-]+")


def is_dag_id(name: str) -> bool:
    """Say whether Airflow takes a name as a DAG's id."""
    return _ID.fullmatch(name) is not None


def refusal_of(name: str) -> str | None:
    """Return why Airflow does not take a name as a DAG's id, and what to write; None where it does."""
    if is_dag_id(name):
        return None
    near = _FORBIDDEN.sub("-", name).strip("-")
    instead = f"write {near}" if is_dag_id(near) else "give it a shorter name of such characters"
    return f"Airflow takes letters, digits, _ - and . in it, at most {MAX_LENGTH} of them; {instead}"
