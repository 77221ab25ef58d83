"""Artifacts of an OpenSearch node. No file is used unless its sha256 is the one in the lock."""

from __future__ import annotations

import concurrent.futures
import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from include.local_stack.prerequisites import install_line, missing_for_the_stack
from include.local_stack.settings import StackError

FOLDER = Path(__file__).parent / "artifacts"
# With its version: Maven would else take whichever its own release names.
MAVEN_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"


class Artifact(msgspec.Struct, frozen=True):
    """One file, named by Maven coordinates (`group:artifact:version[:classifier]`)."""

    gav: str
    type: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The name that the Maven client gives the copy."""
        _, *names = self.gav.split(":")
        return f"{'-'.join(names)}.{self.type}"

    @property
    def group_folder(self) -> str:
        """Where the Maven client keeps its own copy, below its repository folder."""
        group, artifact, version, *_ = self.gav.split(":")
        return f"{group.replace('.', '/')}/{artifact}/{version}"


class Module(msgspec.Struct, frozen=True):
    """A module of the distribution: its jars, and what its plugin descriptor must say."""

    classname: str
    extended_plugins: str
    jars: tuple[Artifact, ...]
    policy: tuple[str, ...]


class Lock(msgspec.Struct, frozen=True):
    """Everything one version of the node is made of."""

    opensearch: str
    java_min: int
    java_max: int | None
    lib: tuple[Artifact, ...]
    agent: tuple[Artifact, ...]
    modules: dict[str, Module]
    plugins: dict[str, Artifact]
    optional_plugins: dict[str, Artifact]

    def artifacts(self) -> tuple[Artifact, ...]:
        """All files that the node needs."""
        jars = (jar for module in self.modules.values() for jar in module.jars)
        return tuple({a.gav: a for a in (*self.lib, *self.agent, *jars, *self.plugins.values())}.values())

    def with_plugins(self, names: Iterable[str]) -> Lock:
        """The lock of a node that has these optional plugins too."""
        chosen = {name: self.optional_plugins[name] for name in names}
        return msgspec.structs.replace(self, plugins=self.plugins | chosen)


def read_lock(version: str, optional: Iterable[str] = ()) -> Lock:
    """The lock of a version, checked for shape, with the optional plugins asked for."""
    lock = msgspec.json.decode((FOLDER / f"lock-{version}.json").read_bytes(), type=Lock, strict=True)
    return lock.with_plugins(optional)


def pom_of(version: str) -> Path:
    """The POM that names the same files for the Maven client."""
    return FOLDER / f"pom-{version}.xml"


def fetch(version: str, cache: Path, optional: Iterable[str] = ()) -> Lock:
    """Complete the cache with the Maven client; runs it only when a file is missing."""
    lock = read_lock(version, optional)
    cache.mkdir(parents=True, exist_ok=True)
    if missing(lock.artifacts(), cache):
        _run_maven(version, cache)
    if left_out := missing(lock.artifacts(), cache):
        raise StackError(
            f"{cache}: mvn left out {', '.join(left_out)}. {pom_of(version).name} and the lock disagree: "
            "both must name the same artifacts."
        )
    return lock


def verify(artifacts: Iterable[Artifact], cache: Path) -> None:
    """Compare every file with the lock; a wrong one is deleted, so that the next run fetches it again."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        wrong = [fault for fault in pool.map(lambda a: _check(a, cache), artifacts) if fault]
    if wrong:
        raise StackError("\n".join(wrong))


def _check(artifact: Artifact, cache: Path) -> str | None:
    path = cache / artifact.file_name
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found == artifact.sha256:
        return None
    path.unlink()
    return (
        f"{path}: sha256 is {found}, the lock says {artifact.sha256}; the file is deleted, run again to fetch it. "
        f"If it comes back wrong, delete ~/.m2/repository/{artifact.group_folder} too."
    )


def missing(artifacts: Iterable[Artifact], cache: Path) -> list[str]:
    """The files that the cache lacks."""
    return [artifact.file_name for artifact in artifacts if not (cache / artifact.file_name).exists()]


def _run_maven(version: str, cache: Path) -> None:
    if not (mvn := shutil.which("mvn")):
        raise StackError(
            f"mvn is missing: it fetches OpenSearch. Install with: {install_line(missing_for_the_stack())}"
        )
    goal = [MAVEN_GOAL, f"-DoutputDirectory={cache}"]
    answer = subprocess.run(
        [mvn, "-q", "-B", "-f", str(pom_of(version)), *goal],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise StackError(
            f"mvn could not fetch OpenSearch {version} into {cache}:\n{(answer.stdout + answer.stderr)[-1500:]}\n"
            "Check the network and the mirrors in ~/.m2/settings.xml, then run again."
        )
