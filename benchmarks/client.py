"""A client is measured in a process of its own, from the moment its modules are loaded to the refreshed index.

What Python needs to start is left out of seconds and processor time, alike for all; a server that is asked once has
no such start. `process_cpu_s` includes it.
"""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Job(msgspec.Struct, frozen=True):
    """What a client has to do: bring the rows of a file into an index that is there."""

    url: str
    index: str
    rows: str
    options: dict[str, int] = {}


class Measured(msgspec.Struct, frozen=True):
    """One run: documents written, wall seconds, processor seconds, peak of resident memory, cores that others used."""

    documents: int
    seconds: float
    cpu_s: float = 0.0
    process_cpu_s: float = 0.0
    peak_mb: float = 0.0
    others_cores: float = 0.0
    counts: dict[str, int] = {}

    @property
    def documents_per_s(self) -> float:
        """Documents a second of wall time."""
        return self.documents / self.seconds

    @property
    def cpu_ms_per_document(self) -> float:
        """Processor milliseconds of the client for each document."""
        return self.cpu_s * 1000 / self.documents


def run(module: str, job: Job, *, python: str = sys.executable) -> Measured:
    """Run a client module as a process and return what it measured; its errors go to the caller's stderr."""
    command = [python, "-m", module, msgspec.json.encode(job).decode()]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - a module of this package
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Measured)


def serve(work: Callable[[Job], Callable[[], int | dict[str, int]]]) -> None:
    """Be a client process: let `work` prepare, then time what it returns and print the result for `run`.

    `work` returns a function that writes everything, refreshes the index, and returns the number of documents, or
    counts with that number as the first one.
    """
    write = work(msgspec.json.decode(sys.argv[1], type=Job))
    # What was loaded is no garbage of the run.
    gc.freeze()
    began, cpu_began = time.perf_counter(), time.process_time()
    written = write()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    counts = written if isinstance(written, dict) else {"documents": written}
    documents = next(iter(counts.values()))
    measured = Measured(documents, seconds, cpu_s, time.process_time(), peak_mb(), counts=counts)
    sys.stdout.write(f"{msgspec.json.encode(measured).decode()}\n")


def peak_mb() -> float:
    """Return this process's peak of resident memory in MiB.

    Linux hands the maximum of `getrusage` on through exec: a child would report its parent's. The high-water mark
    of the address space begins anew.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def alternate(contenders: Mapping[str, Callable[[], T]], *, runs: int) -> dict[str, list[T]]:
    """Let all run once for nothing, then in turn `runs` times, every second round in reverse order."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    for number in range(runs + 1):
        order = list(contenders)[:: -1 if number % 2 else 1]
        for name in order:
            result = contenders[name]()
            if number > 0:
                found[name].append(result)
    return found
