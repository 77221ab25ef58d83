"""Airflow reads this at its start. It lets several of its processes write one SQLite database.

Python's driver begins a transaction before a write; a savepoint before that begins one that only reads. When such a
transaction comes to write while another does, SQLite refuses at once, because waiting would be a deadlock. Airflow
creates the runs of a backfill so, answers 503, removes what it had created, and the scheduler, which had seen some of
them, ends (Airflow 3.3.2). A transaction that begins with a savepoint therefore says at its beginning that it writes.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

# Airflow would take every other name for a setting of its own.
__all__: list[str] = []
BUSY_TIMEOUT_MS = 30_000


@event.listens_for(Engine, "connect")
def wait_for_others(connection: Any, _: Any) -> None:  # noqa: ANN401 - a driver's connection, and a record of the pool
    """Wait longer for a writer than the five seconds of the driver."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")


@event.listens_for(Engine, "savepoint")
def begin_before(connection: Connection, _: str) -> None:
    """Begin a writing transaction before the savepoint, unless there is one."""
    driver = connection.connection.dbapi_connection
    if isinstance(driver, sqlite3.Connection) and not driver.in_transaction:
        driver.execute("BEGIN IMMEDIATE")
