"""Starts what is not serving and ends what it started; what already serves is left alone.

A start that fails names the process, the last lines of its log, and where the log is.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import threading
import time
from collections.abc import Callable, Iterable

from include.local_stack import processes
from include.local_stack.processes import Command
from include.local_stack.settings import LOOPBACK, StackError
from include.local_stack.state import StateFile

SECOND_CHANCE_S = 5.0
LOOK_EVERY_S = 0.1

Say = Callable[[str], None]


class CancelledError(Exception):
    """Another part of the stack failed; this one need not be waited for."""


class Supervisor:
    """The processes of one stack home."""

    def __init__(self, state: StateFile, say: Say) -> None:
        self._state = state
        self._say = say
        self._cancelled = threading.Event()

    def ensure(self, command: Command, address: str = "") -> None:
        """Return when the process serves: the one that runs, if it is healthy, else a new one."""
        if self._serves_already(command):
            processes.keep(command)
            self._say(f"{command.name:<22} runs already   {address}".rstrip())
            return
        began = time.monotonic()
        process = processes.start(command)
        self._state.record(command.name, process)
        if not self._wait_until_healthy(command, process, wait_s=command.wait_s):
            raise StackError(_explanation(command, "ended" if not processes.is_alive(process) else "is not ready"))
        processes.keep(command)
        self._say(f"{command.name:<22} {time.monotonic() - began:5.1f} s   {address}".rstrip())

    def in_parallel(self, branches: Iterable[Callable[[], None]]) -> None:
        """Run all branches; the first failure cancels the waiting of the others and is raised."""
        with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
            futures = [pool.submit(self._guarded, branch) for branch in branches]
        errors = [error for future in futures if (error := future.exception())]
        for error in errors:
            if not isinstance(error, CancelledError):
                raise error
        if errors:
            raise errors[0]

    def stop_all(self) -> list[str]:
        """End every recorded process with its descendants; returns the names of those that were there."""
        state = self._state.read()
        running = state.processes if state else {}
        with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(running))) as pool:
            stopped = pool.map(processes.stop, running.values())
            return [name for name, was_there in zip(running, stopped, strict=True) if was_there]

    def check_cancelled(self) -> None:
        """Raise when another branch failed."""
        if self._cancelled.is_set():
            raise CancelledError

    def _guarded(self, branch: Callable[[], None]) -> None:
        try:
            branch()
        except BaseException:
            self._cancelled.set()
            raise

    def _serves_already(self, command: Command) -> bool:
        state = self._state.read()
        recorded = state.processes.get(command.name) if state else None
        if recorded is None:
            return False
        if processes.is_alive(recorded) and self._wait_until_healthy(command, recorded, wait_s=SECOND_CHANCE_S):
            return True
        self._say(f"{command.name:<22} had stopped serving; starting it again")
        processes.stop(recorded)
        return False

    def _wait_until_healthy(self, command: Command, process: processes.RunningProcess, *, wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            self.check_cancelled()
            if not processes.is_alive(process):
                return False
            if command.is_healthy():
                return True
            time.sleep(LOOK_EVERY_S)
        return False


def answers(port: int, path: str = "/") -> Callable[[], bool]:
    """A health check: the server on this port answers 200."""

    def is_healthy() -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return is_healthy


def stays_alive(for_s: float = 1.0) -> Callable[[], bool]:
    """A health check for a process without a port: true a while after the first look, if it still runs then."""
    first_look = time.monotonic()
    return lambda: time.monotonic() - first_look >= for_s


def _explanation(command: Command, verdict: str) -> str:
    return (
        f"{command.name} {verdict} (waited up to {command.wait_s:.0f} s). Last lines of {command.log}:\n"
        f"{processes.tail(command.log)}\n"
        "What else was started still runs: `make up` tries again, `make down` ends it."
    )
