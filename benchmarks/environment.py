"""A Python environment of a rival's own, so that its packages are not this project's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from include.local_stack.settings import options_from_environment


def python_with(requirements: Path) -> Path:
    """Return a Python that has exactly the pinned packages of a file; it is installed by uv when it is missing."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    home = options_from_environment(os.environ).cache / "benchmarks" / f"{requirements.stem}-{digest}"
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        shutil.rmtree(home, ignore_errors=True)
        _uv("venv", "-p", sys.executable, str(home))
        _uv("pip", "install", "--no-deps", "--compile-bytecode", "-p", str(python), "-r", str(requirements))
        (home / "installed").touch()
    return python


def _uv(*arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "uv"), *arguments, "-q"]
    subprocess.run(command, check=True)  # noqa: S603 - no shell; the paths are ours
