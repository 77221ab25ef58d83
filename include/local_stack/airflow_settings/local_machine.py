"""The name of the machine that a process of Airflow believes to run on: `[core] hostname_callable`."""

from __future__ import annotations

import os
import platform


def name() -> str:
    """Return the name that the local stack has given this process, else that of the real machine."""
    return os.environ.get("LOCAL_MACHINE") or platform.node()
