"""The name of the machine that a process of Airflow believes to run on: `[core] hostname_callable`."""

from __future__ import annotations

import os


def name() -> str:
    """Return the name that the local stack has given this process."""
    return os.environ["LOCAL_MACHINE"]
