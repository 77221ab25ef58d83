"""What the machine itself must bring: a Java and the Maven client. Everything else the stack fetches on its own.

With EXECUTOR=celery also PostgreSQL and Redis. They are not installed otherwise: Debian's packages start them as
services of the system, which nobody asked for who only runs the demo.

Runs before any package is installed (`python3 include/local_stack/prerequisites.py check`): standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

JVM_FOLDER = Path("/usr/lib/jvm")
# Debian keeps PostgreSQL's server programs, by version, out of the PATH.
POSTGRES_FOLDER = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Prerequisite:
    """A program that is missing and the Debian package that brings it."""

    program: str
    package: str


def missing_prerequisites(*, celery: bool) -> tuple[Prerequisite, ...]:
    """What `apt-get` should install; empty when nothing is missing."""
    missing = []
    if not shutil.which("mvn"):
        missing.append(Prerequisite("mvn", "maven"))
    if next(java_candidates(), None) is None:
        missing.append(Prerequisite("java", "default-jre-headless"))
    if celery and postgres_programs() is None:
        missing.append(Prerequisite("postgres", "postgresql"))
    if celery and not shutil.which("redis-server"):
        missing.append(Prerequisite("redis-server", "redis-server"))
    return tuple(missing)


def install_line(missing: tuple[Prerequisite, ...]) -> str:
    """The command that installs them, for a person to copy."""
    packages = " ".join(prerequisite.package for prerequisite in missing)
    return f"sudo apt-get install --yes --no-install-recommends {packages}"


def remedy(*, celery: bool) -> str:
    """What is missing and how to install it; empty when nothing is missing."""
    missing = missing_prerequisites(celery=celery)
    if not missing:
        return ""
    names = ", ".join(prerequisite.program for prerequisite in missing)
    target = f"make prerequisites{' EXECUTOR=celery' if celery else ''}"
    return f"missing: {names}. Install with `{target}` as root, or: {install_line(missing)}"


def check(say: Callable[[str], None], *, celery: bool) -> bool:
    """True when nothing is missing; else say what to run."""
    if found := remedy(celery=celery):
        say(found)
    return not found


def install(say: Callable[[str], None], *, celery: bool) -> bool:
    """Install what is missing when root, else say how; True when nothing is missing any more."""
    missing = missing_prerequisites(celery=celery)
    if not missing or os.geteuid() != 0 or not shutil.which("apt-get"):
        return check(say, celery=celery)
    say(f"installing {', '.join(prerequisite.package for prerequisite in missing)}")
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt_get = ["apt-get", "--quiet"]
    install_command = [*apt_get, *install_line(missing).split()[2:]]
    for command in ([*apt_get, "update"], install_command):
        if subprocess.run(command, check=False, env=environ).returncode:
            say(f"{' '.join(command)} failed; its reason stands above")
            return False
    return check(say, celery=celery)


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
    return 0 if actions[arguments[0]](_say, celery=os.environ.get("EXECUTOR") == "celery") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
