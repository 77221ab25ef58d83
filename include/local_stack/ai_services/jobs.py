"""Job store. One file per job, replaced as a whole: what was accepted outlives the app and the worker.

The app accepts and stops jobs, the worker starts and ends them. Both change a job only under the store's
lock, so neither overwrites what the other has just written.

Beside them lies one empty file for each job that has not ended; its name says when the job is due. Thousands of jobs
that wait cost the worker one look into that folder and no file read.
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
    """Where a job stands; each service says it in its own words, and not each has a word for each."""

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

    `faults` are those it was accepted with. `result` is what its computation has to say beside its rows.
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
        """When the worker may begin."""
        delay = self.fault(FaultKind.DELAY)
        return self.accepted_at_s + (delay.seconds if delay else 0.0)

    @property
    def ended_at_s(self) -> float | None:
        """When it ended, if it has."""
        return self.entered_at_s.get(self.state) if self.state in ENDED else None

    def fault(self, kind: FaultKind) -> Fault | None:
        """The fault of this kind, if the job has it."""
        return next((fault for fault in self.faults if fault.fault is kind), None)

    def entered(self, state: State, now_s: float, **changes: str | dict[str, Any] | None) -> "Job":
        """This job in another state from now on."""
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
        """Keep a new job; its name must be new within its service."""
        path = self._path(job.service, job.name)
        self.accepted(job.service)  # what was there before is listed first
        with self._locked():
            if path.exists():
                raise JobExistsError(job.name)
            self._replace(None, job)
        with self._listing:
            bisect.insort(self._accepted[job.service], job, key=_by_acceptance)

    def exists(self, service: str, name: str) -> bool:
        """Whether a job of this name was ever accepted."""
        return self._path(service, name).exists()

    def get(self, service: str, name: str) -> Job:
        """The job as it stands on disk now."""
        return self._read(self._path(service, name))

    def update(self, service: str, name: str, change: Callable[[Job], Job]) -> Job:
        """Replace a job by what `change` makes of it; nobody else writes in between."""
        with self._locked():
            job = self.get(service, name)
            changed = change(job)
            self._replace(job, changed)
        return changed

    def count(self, service: str) -> int:
        """Jobs ever accepted: ended ones stay."""
        return len(self.accepted(service))

    def texts(self, service: str) -> int:
        """Texts that the model computed in jobs that have ended."""
        return sum(self.current(job).result.get(TEXTS, 0) for job in self.accepted(service))

    def accepted(self, service: str) -> list[Job]:
        """All jobs of a service as they were when this store first saw them, in the order they were accepted.

        Only the store that accepts jobs knows them all: no other process adds any behind its back.
        """
        with self._listing:
            if service not in self._accepted:
                found = [self._read(path) for path in (self._jobs_dir / service).glob("*.json")]
                self._accepted[service] = sorted(found, key=_by_acceptance)
            return list(self._accepted[service])

    def current(self, job: Job) -> Job:
        """The job as it stands now; one that has ended is not read again."""
        ended = self._ended.get((job.service, job.name))
        if ended is None:
            job = self.get(job.service, job.name)
            if job.state in ENDED:
                self._ended[job.service, job.name] = job
        return ended or job

    def end_delays(self) -> None:
        """Let every job that was told to wait be computed now."""
        for path in self._jobs_dir.glob("*/*.json"):
            job = self._read(path)
            if job.state not in ENDED and job.fault(FaultKind.DELAY):
                self.update(job.service, job.name, _without_delay)

    def next_due(self, now_s: float) -> Job | None:
        """The job to compute now: of those due or asked to stop the one accepted first."""
        with os.scandir(self._pending_dir) as found:
            entries = [_Pending.read(entry.name) for entry in found]
        due = sorted(entry for entry in entries if entry.due_ms <= now_s * 1000)
        for entry in due:
            try:
                job = self.get(entry.service, entry.name)
            except UnknownJobError:
                continue  # its acceptance is not over, or was cut off by a kill
            if job.state not in ENDED:
                return job
            self._forget(entry)
        return None

    def _forget(self, entry: "_Pending") -> None:
        """A kill came between the end of a job and this."""
        with self._locked():
            (self._pending_dir / entry.file_name()).unlink(missing_ok=True)

    def _replace(self, old: Job | None, new: Job) -> None:
        """In this order a kill leaves a name too many, never a job that nobody takes."""
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
    """The name of the empty file that stands for a job to be done; ordered as jobs are taken."""

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
