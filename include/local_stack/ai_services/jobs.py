"""Job store: one file per job, replaced atomically, so accepted jobs survive a crash of the app or the worker.

The app accepts and stops jobs; the worker starts and ends them. Both change a job only while they hold the store's
lock, so neither overwrites a change of the other.

In a second folder, each job that has not ended has an empty file whose name contains the time when the job is due. So
the worker finds the next of thousands of waiting jobs by listing one folder, without reading a file.
"""

import bisect
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from include.local_stack.ai_services.faults import Fault, FaultKind


class State(StrEnum):
    """The state of a job. Each service has its own names for these states, and no service has all of them."""

    ACCEPTED = "accepted"
    VALIDATING = "validating"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    FINALIZING = "finalizing"
    STOPPING = "stopping"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    STOPPED = "stopped"
    EXPIRED = "expired"


# Member of a job's result: how many texts the model computed for it.
TEXTS = "texts"
ENDED = frozenset({State.COMPLETED, State.PARTIAL, State.FAILED, State.STOPPED, State.EXPIRED})


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted job; times are seconds since the epoch.

    `faults` are the faults that apply to the job. `result` is the result of its computation, except the output rows.
    """

    service: str
    name: str
    request: dict[str, Any]
    accepted_at_s: float
    faults: tuple[Fault, ...] = ()
    state: State = State.ACCEPTED
    entered_at_s: dict[State, float] = {}
    failure_reason: str | None = None
    result: dict[str, Any] = {}

    @property
    def start_not_before_s(self) -> float:
        """The time from which the worker may start the job."""
        delay = self.fault(FaultKind.DELAY)
        return self.accepted_at_s + (delay.seconds if delay else 0.0)

    @property
    def ended_at_s(self) -> float | None:
        """The time when the job ended, None if it has not."""
        return self.entered_at_s.get(self.state) if self.state in ENDED else None

    def fault(self, kind: FaultKind) -> Fault | None:
        """Return the fault of this kind, None if the job has none."""
        return next((fault for fault in self.faults if fault.fault is kind), None)

    def entered(self, state: State, now_s: float, **changes: str | dict[str, Any] | None) -> "Job":
        """Return the job in a state that it enters now."""
        times = {**self.entered_at_s, state: now_s}
        return msgspec.structs.replace(self, state=state, entered_at_s=times, **changes)


class JobExistsError(RuntimeError):
    """A job with this name was accepted before."""


class UnknownJobError(LookupError):
    """No job with this name was ever accepted."""


class JobStore:
    """The jobs of all services below one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._jobs_dir = state_dir / "jobs"
        self._pending_dir = state_dir / "jobs_pending"
        for folder in (self._jobs_dir, self._pending_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = state_dir / "jobs.lock"
        self._listing = threading.Lock()
        self._accepted: dict[str, list[Job]] = {}
        self._ended: dict[tuple[str, str], Job] = {}

    def accept(self, job: Job) -> None:
        """Store a new job; raise JobExistsError if its service has a job of this name."""
        path = self._path(job.service, job.name)
        self.accepted(job.service)  # loads the jobs that were stored before
        with self._locked():
            if path.exists():
                raise JobExistsError(job.name)
            self._replace(None, job)
        with self._listing:
            bisect.insort(self._accepted[job.service], job, key=_by_acceptance)

    def exists(self, service: str, name: str) -> bool:
        """Return whether a job of this name was accepted."""
        return self._path(service, name).exists()

    def get(self, service: str, name: str) -> Job:
        """Return the stored job."""
        return self._read(self._path(service, name))

    def update(self, service: str, name: str, change: Callable[[Job], Job]) -> Job:
        """Replace a job with the result of `change`, under the lock; return the new job."""
        with self._locked():
            job = self.get(service, name)
            changed = change(job)
            self._replace(job, changed)
        return changed

    def count(self, service: str) -> int:
        """Return the number of accepted jobs, including ended ones."""
        return len(self.accepted(service))

    def texts(self, service: str) -> int:
        """Texts that the model computed in jobs that have ended."""
        return sum(self.current(job).result.get(TEXTS, 0) for job in self.accepted(service))

    def accepted(self, service: str) -> list[Job]:
        """Return all jobs of a service in the order of acceptance, in the state in which this store first read them.

        The list is complete only in the process that accepts jobs, because the list is read from disk only once.
        """
        with self._listing:
            if service not in self._accepted:
                stored = [self._read(path) for path in (self._jobs_dir / service).glob("*.json")]
                self._accepted[service] = sorted(stored, key=_by_acceptance)
            return list(self._accepted[service])

    def current(self, job: Job) -> Job:
        """Return the current state of a job; an ended job is read only once."""
        ended = self._ended.get((job.service, job.name))
        if ended is None:
            job = self.get(job.service, job.name)
            if job.state in ENDED:
                self._ended[job.service, job.name] = job
        return ended or job

    def end_delays(self) -> None:
        """Remove the delays of all jobs that have not ended, so that the worker computes them now."""
        for path in self._jobs_dir.glob("*/*.json"):
            job = self._read(path)
            if job.state not in ENDED and job.fault(FaultKind.DELAY):
                self.update(job.service, job.name, _without_delay)

    def next_due(self, now_s: float) -> Job | None:
        """Return the job to compute now, or None: of the jobs that are due or stopping, the one accepted first."""
        with os.scandir(self._pending_dir) as files:
            entries = [_Pending.read(file.name) for file in files]
        due = sorted(entry for entry in entries if entry.due_ms <= now_s * 1000)
        for entry in due:
            try:
                job = self.get(entry.service, entry.name)
            except UnknownJobError:
                continue  # the job file is written after the pending file: not yet, or never because of a kill
            if job.state not in ENDED:
                return job
            self._forget(entry)
        return None

    def _forget(self, entry: "_Pending") -> None:
        """Delete the pending file of an ended job, which remains if the process is killed after the end."""
        with self._locked():
            (self._pending_dir / entry.file_name()).unlink(missing_ok=True)

    def _replace(self, old: Job | None, new: Job) -> None:
        """Write a job and its pending file, in this order: a kill may leave a superfluous file, but loses no job."""
        before, after = _Pending.of(old), _Pending.of(new)
        if after and after != before:
            (self._pending_dir / after.file_name()).touch()
        self._write(self._path(new.service, new.name), new)
        if before and after != before:
            (self._pending_dir / before.file_name()).unlink(missing_ok=True)

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


def _without_delay(job: Job) -> Job:
    return msgspec.structs.replace(job, faults=tuple(each for each in job.faults if each.fault is not FaultKind.DELAY))


def _by_acceptance(job: Job) -> tuple[float, str]:
    return job.accepted_at_s, job.name


class _Pending(msgspec.Struct, frozen=True, order=True):
    """The name of the empty file of a job that has not ended; sorts in the order in which the worker takes the jobs."""

    accepted_us: int
    service: str
    name: str
    due_ms: int

    @classmethod
    def of(cls, job: Job | None) -> "_Pending | None":
        if job is None or job.state in ENDED:
            return None
        due_ms = 0 if job.state is State.STOPPING else int(job.start_not_before_s * 1000)
        return cls(int(job.accepted_at_s * 1_000_000), job.service, job.name, due_ms)

    @classmethod
    def read(cls, file_name: str) -> "_Pending":
        due, accepted, service, name = file_name.split(".", 3)
        return cls(int(accepted), service, unquote(name), int(due))

    def file_name(self) -> str:
        return f"{self.due_ms}.{self.accepted_us}.{self.service}.{quote(self.name, safe='')}"
