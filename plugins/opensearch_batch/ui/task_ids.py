"""Distinguishes ids of runs from ids of ML Commons tasks, without a request.

OpenSearch creates ids from the characters of URL-safe base64. The id of a run is its run id, which has another
character, such as the dot in the ids that this API creates, or the colons in those that Airflow creates. A run whose
user chose an id of OpenSearch's characters only is not a task: its id could be that of a task of ML Commons.
"""

from __future__ import annotations

import re

_OPENSEARCH_ID = re.compile(r"[A-Za-z0-9_-]+")


def is_run(task_id: str) -> bool:
    """Return whether a task id is that of a run."""
    return _OPENSEARCH_ID.fullmatch(task_id) is None
