"""The processes of a stack of a test's own, and how to kill, pause and miss them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from include.local_stack import processes
from include.local_stack.processes import RunningProcess
from include.local_stack.stack import Stack, StackOptions
from include.local_stack.state import StateFile
from tests.lab import Lab
from tests.stored import present
from tests.waiting import eventually


class RunningStack:
    """A stack that the test starts and ends; each of its processes is started again when it ends."""

    def __init__(self, options: StackOptions) -> None:
        self.options = options
        self.lab = Lab(Stack.up(options), options.opensearch_version)
        try:
            self.state = present(StateFile(options.home).read())
            self.set_up()
        except BaseException:
            RunningStack.close(self)
            raise

    def set_up(self) -> None:
        """Override in a subclass: create what its tests need; after an error everything is stopped."""

    def close(self) -> None:
        """Stop everything."""
        self.lab.close()
        self.lab.stack.down()

    def programs(self, name: str) -> list[RunningProcess]:
        """Return what runs of a process of the stack, without the parent that starts it again."""
        parent = self._parent(name)
        return [each for each in processes.members_of_session(parent) if each != parent]

    def signal(self, name: str, number: int) -> None:
        """Send a signal to all that runs of a process of the stack."""
        for program in self.programs(name):
            if processes.is_alive(program):
                os.kill(program.pid, number)

    def kill(self, name: str) -> None:
        """End a process of the stack without warning; its parent starts it again."""
        self.signal(name, signal.SIGKILL)

    @contextmanager
    def away(self, name: str, number: int) -> Iterator[None]:
        """End a process of the stack by a signal; it is started again afterwards."""
        parent = self._parent(name).pid
        os.kill(parent, signal.SIGSTOP)
        try:
            self.signal(name, number)
            eventually(lambda: not self.programs(name), f"the end of {name}")
            yield
        finally:
            os.kill(parent, signal.SIGCONT)

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a process of the stack."""
        # That of its parent is the same, and Celery overwrites its own.
        pid = self._parent(name).pid
        lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def _parent(self, name: str) -> RunningProcess:
        return self.state.processes[name]
