"""Airflow's auth manager and database in this process, as the api-server has them; no scheduler runs anything.

Tests of the pages and of the API share them: a process chooses its database when it imports Airflow.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from include.local_stack.airflow import Airflow
from include.local_stack.settings import DEFAULT_PORTS, REPOSITORY, Ports, options_from_environment

ROLES = {"admin": "ADMIN", "op": "OP", "user": "USER", "viewer": "VIEWER", "neighbour": "USER"}
PORTS = Ports(**dict.fromkeys(DEFAULT_PORTS, 1))
SETTINGS = {
    "_AIRFLOW_PROCESS_CONTEXT": "server",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in ROLES.items()),
    "AIRFLOW__CORE__AUTH_MANAGER": "tests.pages.per_dag_auth.PerDagAuthManager",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
}


@cache
def prepared() -> dict[str, str]:
    """Prepare the database with the repository's DAGs; return the settings that differ from this process's own."""
    home = Path(os.environ["AIRFLOW_HOME"])
    airflow = Airflow(options_from_environment({**os.environ, "LOCAL_STACK_HOME": str(home / "stack")}), PORTS)
    airflow.prepare()
    shutil.copyfile(airflow.folder / "airflow.db", home / "airflow.db")
    passwords = {name: password(name) for name in ROLES}
    (airflow.folder / "passwords.json").write_text(json.dumps(passwords))
    settings = {name: value for name, value in airflow.environment().items() if name.startswith("AIRFLOW__")}
    del settings["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    settings |= SETTINGS
    with environ(settings):
        _store_dags()
    return settings


def password(name: str) -> str:
    """Return the password of a user."""
    return f"{name}-päss:word"


@contextmanager
def environ(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield


def _store_dags() -> None:
    with warnings.catch_warnings():
        # Airflow's own packages warn about each other.
        warnings.simplefilter("ignore")
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

        bundles: Any = DagBundlesManager
        bundles().sync_bundles_to_db()
        dags = REPOSITORY / "dags"
        for name in ("pipelines.py", "request_dags.py"):
            bag = BundleDagBag(dags / name, bundle_path=dags, bundle_name="dags-folder")
            assert not bag.import_errors
            sync_bag_to_db(bag, "dags-folder", bundle_version=None)
