"""Ids of connections that a Data Prepper file describes: ``<file>#<pipeline>/source``. Loads no parser."""

from __future__ import annotations

from pathlib import Path

from opensearch_batch.core.pipeline.file import SUFFIXES

SOURCE, MODEL = "source", "model"
_MARKS = tuple(f"{suffix}#" for suffix in SUFFIXES)


def file_conn_id(path: Path, pipeline: str, *keys: str | int) -> str:
    """Return the id of the connection that the block of a file at these keys describes."""
    return f"{path}#{'/'.join(map(str, (pipeline, *keys)))}"


def is_in_file(conn_id: str) -> bool:
    """Whether a file describes the connection."""
    return any(mark in conn_id for mark in _MARKS)
