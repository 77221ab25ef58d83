"""Machines that share no folder: each has a copy of the project, an Airflow home and a temporary folder of its own.

Airflow's workers and triggerers run on them, as in production, where a deployment copies the project to each.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from include.local_stack.settings import REPOSITORY

PROJECT = ("dags", "include", "plugins")


class Machine(msgspec.Struct, frozen=True):
    """One machine."""

    name: str
    folder: Path

    @property
    def project(self) -> Path:
        """The copy of the repository."""
        return self.folder / "project"

    @property
    def own_dags(self) -> Path:
        """The copy of the DAG files beside the repository's."""
        return self.folder / "own" / "dags"

    @property
    def home(self) -> Path:
        """Airflow's home."""
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files."""
        return self.folder / "tmp"

    def deploy(self, own: Path) -> None:
        """Copy the project, and what lies in `dags/` and `include/` of the folder `own`; files that are equal stay."""
        for source, target in ((REPOSITORY, self.project), (own, self.folder / "own")):
            for name in PROJECT:
                if (source / name).exists():
                    shutil.copytree(
                        source / name,
                        target / name,
                        dirs_exist_ok=True,
                        copy_function=_copy_if_changed,
                        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
                    )
        for folder in (self.home, self.temporary, self.own_dags):
            folder.mkdir(parents=True, exist_ok=True)


def deploy_to_all(airflow_folder: Path) -> None:
    """Copy the project to the machines of an Airflow; without machines it does nothing."""
    for folder in (airflow_folder / "machines").glob("*"):
        Machine(folder.name, folder).deploy(airflow_folder)


def _copy_if_changed(source: str, target: str) -> None:
    """Copy a file with its time; a running process never meets half of one."""
    new, there = Path(source).stat(), Path(target)
    if there.exists() and (there.stat().st_size, there.stat().st_mtime_ns) == (new.st_size, new.st_mtime_ns):
        return
    draft = there.with_name(f".{there.name}.draft")
    shutil.copy2(source, draft)
    draft.replace(there)
