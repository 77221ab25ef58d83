"""A fresh environment with the wheel, as a user installs it, and its Airflow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What a user already has: the versions that this package is developed with, and Airflow's own of the oldest supported.
CONSTRAINTS = {
    "current": ROOT / "constraints.txt",
    "oldest": Path(__file__).parent / "constraints-3.3.0.txt",
}


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the sources, because a build leaves files beside them."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "plugins", source / "plugins", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    _uv("build", "--wheel", "--out-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


class Installed:
    """The wheel in an environment without this repository; `settings` are environment variables of its Airflow."""

    def __init__(self, folder: Path, wheel: Path, constraints: Path) -> None:
        self._python = folder / "environment" / "bin" / "python"
        _uv("venv", "--python", sys.executable, str(folder / "environment"))
        _uv("pip", "install", "--python", str(self._python), "--constraint", str(constraints), str(wheel))
        self.home = folder / "airflow"
        (self.home / "dags").mkdir(parents=True)
        self.settings: dict[str, str] = {}

    def airflow(self, *arguments: str) -> str:
        """Run Airflow's command line; return its output. It must succeed."""
        return self.run("airflow", *arguments)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what Airflow's command line lists."""
        # `list-import-errors` fails if there are some.
        output = self.run("airflow", *arguments, "--output", "json", succeeds=arguments[-1] != "list-import-errors")
        rows: list[dict[str, Any]] = json.loads(output[output.index("[{") :])
        return rows

    def run(self, program: str, *arguments: str, succeeds: bool = True) -> str:
        """Run a program of the environment; return its output. It must succeed, or fail."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        settings = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(  # noqa: S603 - our own environment
            [self._python.parent / program, *arguments],
            cwd=self.home,
            env={**inherited, **settings, **self.settings},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
        return done.stdout


def _uv(*arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "uv"), *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - pinned by this project
    assert done.returncode == 0, done.stderr
