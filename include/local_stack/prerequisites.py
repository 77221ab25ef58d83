"""What the machine itself must bring: a Java and the Maven client; for the tests of the pages, a browser.

Everything else the stack fetches on its own.

With EXECUTOR=celery also PostgreSQL and Redis. They are not installed otherwise: Debian's packages start them as
services of the system, which nobody asked for who only runs the demo.

Runs before any package is installed (`python3 include/local_stack/prerequisites.py check`): standard library only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

JVM_FOLDER = Path("/usr/lib/jvm")
# Debian keeps PostgreSQL's server programs, by version, out of the PATH.
POSTGRES_FOLDER = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Prerequisite:
    """A program that is missing and the Debian packages that bring it."""

    program: str
    packages: str


Find = Callable[[], tuple[Prerequisite, ...]]


def missing_for_the_stack() -> tuple[Prerequisite, ...]:
    """What the local stack needs."""
    missing = []
    if not shutil.which("mvn"):
        missing.append(Prerequisite("mvn", "maven"))
    if next(java_candidates(), None) is None:
        missing.append(Prerequisite("java", "default-jre-headless"))
    return tuple(missing)


def missing_for_celery() -> tuple[Prerequisite, ...]:
    """What the local stack needs with EXECUTOR=celery."""
    missing = [*missing_for_the_stack()]
    if postgres_programs() is None:
        missing.append(Prerequisite("postgres", "postgresql"))
    if not shutil.which("redis-server"):
        missing.append(Prerequisite("redis-server", "redis-server"))
    return tuple(missing)


def missing_browser() -> tuple[Prerequisite, ...]:
    """The browser that the tests of the pages drive, with a font of Airflow's UI for their pictures."""
    return () if shutil.which("chromium") else (Prerequisite("chromium", "chromium fonts-inter"),)


def install_line(missing: tuple[Prerequisite, ...]) -> str:
    """The command that installs them, for a person to copy."""
    packages = " ".join(prerequisite.packages for prerequisite in missing)
    return f"sudo apt-get install --yes --no-install-recommends {packages}"


def remedy(find: Find) -> str:
    """What is missing and how to install it; empty when nothing is missing."""
    missing = find()
    names = ", ".join(prerequisite.program for prerequisite in missing)
    return f"missing: {names}. Run this again as root, or: {install_line(missing)}" if missing else ""


def check(say: Callable[[str], None], find: Find) -> bool:
    """True when nothing is missing; else say what to run."""
    if found := remedy(find):
        say(found)
    return not found


def install(say: Callable[[str], None], find: Find) -> bool:
    """Install what is missing when root, else say how; True when nothing is missing any more."""
    with _one_at_a_time():
        return _install(say, find)


def _install(say: Callable[[str], None], find: Find) -> bool:
    missing = find()
    if not missing or os.geteuid() != 0 or not shutil.which("apt-get"):
        return check(say, find)
    say(f"installing {', '.join(prerequisite.packages for prerequisite in missing)}")
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt_get = ["apt-get", "--quiet"]
    install_command = [*apt_get, *install_line(missing).split()[2:]]
    for command in ([*apt_get, "update"], install_command):
        if subprocess.run(command, check=False, env=environ).returncode:
            say(f"{' '.join(command)} failed; its reason stands above")
            return False
    return check(say, find)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait for another process of the same user that installs; apt-get would fail."""
    with (Path(tempfile.gettempdir()) / f"opensearch-batch-prerequisites-{os.geteuid()}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def java_candidates() -> Iterator[Path]:
    """Every Java of this machine, the preferred first: JAVA_HOME, the PATH, the system's own folder."""
    if home := os.environ.get("JAVA_HOME"):
        yield from _existing(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        yield Path(on_path).resolve()
    for jvm in sorted(JVM_FOLDER.glob("*")):
        yield from _existing(jvm / "bin" / "java")


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs: that of the PATH, else the system's newest; None without one."""
    if on_path := shutil.which("postgres"):
        return Path(on_path).resolve().parent
    versions = [folder for folder in POSTGRES_FOLDER.glob("*") if (folder / "bin" / "postgres").exists()]
    newest = max(versions, key=lambda folder: int(folder.name), default=None)
    return newest / "bin" if newest else None


def _existing(executable: Path) -> Iterator[Path]:
    if os.access(executable, os.X_OK):
        yield executable


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """`check` or `install`; the exit code is 0 when nothing is missing."""
    actions = {"check": check, "install": install}
    if len(arguments) != 1 or arguments[0] not in actions:
        sys.stderr.write("usage: prerequisites.py check|install\n")
        return 2
    find = missing_for_celery if os.environ.get("EXECUTOR") == "celery" else missing_for_the_stack
    return 0 if actions[arguments[0]](_say, find) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
