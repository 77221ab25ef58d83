"""Job store. One file per job, replaced as a whole: what was accepted outlives the app and the worker.

The app accepts and stops jobs, the worker starts and ends them. Both change a job only under the store's
lock, so neither overwrites what the other has just written.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec


class State(StrEnum):
    """Where a job stands; each service says it in its own words."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


ENDED = frozenset({State.COMPLETED, State.FAILED, State.STOPPED})


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted job; times are seconds since the epoch."""

    service: str
    name: str
    request: dict[str, Any]
    accepted_at_s: float
    start_not_before_s: float = 0.0
    injected_failure: str | None = None
    state: State = State.ACCEPTED
    started_at_s: float | None = None
    ended_at_s: float | None = None
    failure_reason: str | None = None


class JobExistsError(RuntimeError):
    """A job with this name was accepted before."""


class UnknownJobError(LookupError):
    """No job with this name was ever accepted."""


class JobStore:
    """The jobs of all services below one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._jobs_dir = state_dir / "jobs"
        self._jobs_dir.mkdir(parents=True, exist_ok=True)
        self._lock_file = state_dir / "jobs.lock"
        self._ended: set[Path] = set()

    def accept(self, job: Job) -> None:
        """Keep a new job; its name must be new within its service."""
        path = self._path(job.service, job.name)
        with self._locked():
            if path.exists():
                raise JobExistsError(job.name)
            self._write(path, job)

    def exists(self, service: str, name: str) -> bool:
        """Whether a job of this name was ever accepted."""
        return self._path(service, name).exists()

    def get(self, service: str, name: str) -> Job:
        """The job as it stands on disk now."""
        return self._read(self._path(service, name))

    def update(self, service: str, name: str, change: Callable[[Job], Job]) -> Job:
        """Replace a job by what `change` makes of it; nobody else writes in between."""
        path = self._path(service, name)
        with self._locked():
            changed = change(self._read(path))
            self._write(path, changed)
        return changed

    def count(self, service: str) -> int:
        """Jobs ever accepted: ended ones stay."""
        return sum(1 for _ in (self._jobs_dir / service).glob("*.json"))

    def unfinished(self) -> list[Job]:
        """Jobs that have not ended, in the order they were accepted."""
        jobs = []
        # An ended job never changes: its file is read once, or a long-lived stack would poll ever slower.
        for path in set(self._jobs_dir.glob("*/*.json")) - self._ended:
            job = self._read(path)
            if job.state in ENDED:
                self._ended.add(path)
            else:
                jobs.append(job)
        return sorted(jobs, key=lambda job: (job.accepted_at_s, job.name))

    def _path(self, service: str, name: str) -> Path:
        return self._jobs_dir / service / f"{quote(name, safe='')}.json"

    @staticmethod
    def _read(path: Path) -> Job:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Job)
        except FileNotFoundError:
            raise UnknownJobError(path.stem) from None

    @staticmethod
    def _write(path: Path, job: Job) -> None:
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(job))
        temporary.replace(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The kernel drops the lock of a killed process.
        with self._lock_file.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
