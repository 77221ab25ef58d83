"""Tells ids of runs from those of ML Commons' tasks, without asking for either.

OpenSearch makes ids of the characters of URL-safe base64. The id of a run is its run id, which has another character,
such as the dot in ids of runs that are started here, or the colons in those that Airflow makes. A run whose id a user
chose of OpenSearch's characters alone is no task: else it could stand in for a task of ML Commons.
"""

from __future__ import annotations

import re

_OPENSEARCH_ID = re.compile(r"[A-Za-z0-9_-]+")


def is_run(task_id: str) -> bool:
    """Return whether a task id is that of a run."""
    return _OPENSEARCH_ID.fullmatch(task_id) is None
