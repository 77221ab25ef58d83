"""Ids of connections that a Data Prepper file describes: ``<file>#<pipeline>/source``. Imports no parser.

Resolving such an id opens a file, so a user must not be able to choose one. Only ids that this process created, or that
a DAG passed to a trigger, are resolved; every other id of this form is refused.
"""

from __future__ import annotations

SOURCE, MODEL = "source", "model"
_accepted: set[str] = set()


def file_conn_id(location: str, pipeline: str, *keys: str | int) -> str:
    """Return the id of the connection that a block of the file describes; `keys` are its path in the pipeline."""
    conn_id = f"{location}#{'/'.join(map(str, (pipeline, *keys)))}"
    _accepted.add(conn_id)
    return conn_id


def accept_conn_ids(*conn_ids: str | None) -> None:
    """Accept the connection ids of a trigger: they are not templated, so they come from the DAG and not from a user."""
    _accepted.update(conn_id for conn_id in conn_ids if conn_id and "#" in conn_id)


def is_in_file(conn_id: str) -> bool:
    """Whether a Data Prepper file describes the connection."""
    return conn_id in _accepted
