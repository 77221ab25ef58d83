"""Airflow's public REST API, as far as the demo and the end-to-end tests need it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import requests

TIMEOUT_S = 120
PARSE_WAIT_S = 300
ENDED = frozenset({"success", "failed"})


def parse_again(folders: Sequence[Path]) -> None:
    """Make the DAG processor parse all DAG files of folders, because the pipelines that they read have changed.

    It parses a file again at once if the file was modified after it was last parsed, which may be going on.
    """
    soon = time.time() + 1
    for folder in folders:
        for file in folder.glob("*.py"):
            os.utime(file, (soon, soon))


class AirflowAPI:
    """A signed-in user of one Airflow.

    Args:
        url: the api-server's address.
        user: the user's name.
        password: sent once, for a token.
        dag_folders: the folders of DAG files, which are parsed at once when a DAG is missing.
    """

    def __init__(self, url: str, user: str, password: str, *, dag_folders: Sequence[Path] = ()) -> None:
        self.url = url.rstrip("/")
        self._dag_folders = dag_folders
        self._session = requests.Session()
        # Loopback needs no proxy, and the environment's would refuse it.
        self._session.trust_env = False
        answer = self._session.post(
            f"{self.url}/auth/token", json={"username": user, "password": password}, timeout=TIMEOUT_S
        )
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> Any:  # noqa: ANN401 - JSON
        """Send one request below ``/api/v2`` and return its JSON; an error status raises requests.HTTPError."""
        answer = self._session.request(
            method, f"{self.url}/api/v2/{path}", json=body, params=params or None, timeout=TIMEOUT_S
        )
        if answer.status_code >= 400:  # noqa: PLR2004 - HTTP errors start here
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text[:500]}", response=answer)
        return answer.json() if answer.content else None

    def wait_for_dag(self, dag_id: str) -> None:
        """Return when Airflow has parsed a DAG; raise what its import error says, or TimeoutError."""
        give_up_at, is_awaited = time.monotonic() + PARSE_WAIT_S, False
        while time.monotonic() < give_up_at:
            try:
                if not self.call("GET", f"dags/{dag_id}")["is_paused"]:
                    return
                self.call("PATCH", f"dags/{dag_id}", {"is_paused": False})
            except requests.HTTPError as error:
                if error.response is None or error.response.status_code != requests.codes.not_found:
                    raise
                if not is_awaited:
                    parse_again(self._dag_folders)
                    is_awaited = True
                time.sleep(0.5)
        broken = [found["stack_trace"] for found in self.call("GET", "importErrors")["import_errors"]]
        raise TimeoutError(f"Airflow has no DAG {dag_id} after {PARSE_WAIT_S} s; import errors: {broken or 'none'}")

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        run = self.call("POST", f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf or {}})
        return str(run["dag_run_id"])

    def backfill(self, dag_id: str, first: date, last: date, *, at_once: int, reprocess: str = "none") -> int:
        """Run a DAG for all dates from one to another; return the backfill's id.

        `reprocess` says which runs that are there are run again: ``none``, ``failed``, or ``completed``, which is all.
        """
        body = {
            "dag_id": dag_id,
            "from_date": f"{first}T00:00:00Z",
            "to_date": f"{last}T23:59:59Z",
            "max_active_runs": at_once,
            "reprocess_behavior": reprocess,
        }
        return int(self.call("POST", "backfills", body)["id"])

    def wait_for_backfill(self, backfill: int, *, wait_s: float) -> None:
        """Return when all its runs have ended, or raise TimeoutError."""
        give_up_at = time.monotonic() + wait_s
        while time.monotonic() < give_up_at:
            if self.call("GET", f"backfills/{backfill}")["completed_at"]:
                return
            time.sleep(1)
        raise TimeoutError(f"backfill {backfill} did not end in {wait_s:.0f} s")

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a run."""
        found: dict[str, Any] = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")
        return found

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run."""
        found: list[dict[str, Any]] = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=1000)[
            "task_instances"
        ]
        return found

    def xcom(self, task: dict[str, Any], key: str = "return_value") -> Any:  # noqa: ANN401 - JSON
        """Return one XCom of a task instance as Airflow stores it."""
        path = f"dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/xcomEntries/{key}"
        return self.call("GET", path, map_index=task["map_index"], stringify="false")["value"]

    def log(self, task: dict[str, Any], try_number: int | None = None) -> str:
        """Return the log of a task instance as text."""
        path = f"dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
        number = try_number or max(1, task["try_number"])
        lines = self.call("GET", f"{path}/logs/{number}", map_index=task["map_index"], full_content="true")["content"]
        return "\n".join(str(line) for line in lines)

    def wait(self, dag_id: str, run_id: str, *, wait_s: float) -> str:
        """Return the end state of a run, or raise TimeoutError."""
        give_up_at = time.monotonic() + wait_s
        while time.monotonic() < give_up_at:
            state = str(self.run(dag_id, run_id)["state"])
            if state in ENDED:
                return state
            time.sleep(0.5)
        raise TimeoutError(f"run {run_id} of {dag_id} is still {state} after {wait_s:.0f} s")
