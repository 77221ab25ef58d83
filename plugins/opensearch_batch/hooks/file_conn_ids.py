"""Ids of connections that a Data Prepper file describes: ``<file>#<pipeline>/source``. Loads no parser.

Such an id opens a file, so it must not come from outside: only an id that this process made, or that a DAG's own code
passed to a trigger, is accepted. Any other text of this form is refused.
"""

from __future__ import annotations

from pathlib import Path

SOURCE, MODEL = "source", "model"
_made: set[str] = set()


def file_conn_id(path: Path, pipeline: str, *keys: str | int) -> str:
    """Return the id of the connection that the block of a file at these keys describes."""
    conn_id = f"{path}#{'/'.join(map(str, (pipeline, *keys)))}"
    _made.add(conn_id)
    return conn_id


def accept(*conn_ids: str | None) -> None:
    """Accept the ids of a trigger: they are no templates, so the process that made the trigger had them of its DAG."""
    _made.update(conn_id for conn_id in conn_ids if conn_id and "#" in conn_id)


def is_in_file(conn_id: str) -> bool:
    """Whether a file describes the connection."""
    return conn_id in _made
