"""Processes by identity. A signal goes only to a process whose pid and start time are the recorded ones."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from include.local_stack.settings import LOOPBACK

LOG_TAIL_LINES = 15
# Short: a triggerer whose database is gone waits far longer, and `down` throws the database away.
GRACE_S = 4.0
KILL_AFTER_S = 2.0
RESPAWN = Path(__file__).with_name("respawn.py")

# Kept so that this program can reap what it started; Popen also warns when it is dropped while its process runs.
_children: dict[int, subprocess.Popen[bytes]] = {}


class RunningProcess(msgspec.Struct, frozen=True):
    """A process as recorded: the pid alone may have passed to a stranger since."""

    pid: int
    started: str


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One process to start and how to know that it serves.

    `restarts` says whether it is started again when it ends, `stop_signal` what ends it in order.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    is_healthy: Callable[[], bool]
    wait_s: float = 90.0
    uid: int | None = None
    gid: int | None = None
    restarts: bool = True
    stop_signal: int = signal.SIGTERM

    @property
    def healthy(self) -> Path:
        """The file that exists from the first health check on."""
        return self.log.with_suffix(".healthy")


def child_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment for a child, without the person's own AWS, Airflow and AI service settings.

    Loopback never goes through a proxy, whatever the machine uses for the outside.
    """
    kept = {
        key: value
        for key, value in environ.items()
        if not key.startswith(("AWS_", "AIRFLOW_", "OPENAI_", "CO_API_", "PYTHONWARNINGS"))
    }
    return kept | {"NO_PROXY": f"{LOOPBACK},localhost", "no_proxy": f"{LOOPBACK},localhost"}


def start(command: Command) -> RunningProcess:
    """Start in a session of its own: it outlives the caller, and its children are found by the session.

    The process is the program's parent, which starts it again (`respawn.py`).
    """
    command.log.parent.mkdir(parents=True, exist_ok=True)
    command.healthy.unlink(missing_ok=True)
    with command.log.open("ab") as log:
        child = subprocess.Popen(
            _respawning(command),
            env=dict(command.env),
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return RunningProcess(pid=child.pid, started=start_time(child.pid) or "")


def _respawning(command: Command) -> list[str]:
    account = "" if command.uid is None else f"{command.uid}:{command.gid}"
    # Isolated and without site: the environment and its packages are the program's.
    respawn = [sys.executable, "-I", "-S", str(RESPAWN)]
    return [*respawn, str(command.healthy), str(int(command.stop_signal)), account, *command.argv]


def keep(command: Command) -> None:
    """From now on, start the program again when it ends."""
    if command.restarts:
        command.healthy.touch()


def is_alive(process: RunningProcess) -> bool:
    """Whether this very process still runs."""
    alive = bool(process.started) and start_time(process.pid) == process.started
    if not alive:
        _reap(process)
    return alive


def start_time(pid: int) -> str | None:
    """When the process started, in the system's own words; None when it is gone or only waits to be reaped."""
    try:
        # proc(5): fields after the command in parentheses; the first is the state, the 20th the start in ticks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _start_time_from_ps(pid)
    # A JVM shows as a zombie while its last threads still end; it is gone when the 18th field counts none besides.
    is_gone = fields[0] in "ZX" and int(fields[17]) <= 1
    return None if is_gone else fields[19]


def _start_time_from_ps(pid: int) -> str | None:
    """The same where there is no /proc (macOS)."""
    line = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607  ps lies in different places
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    state, _, started = line.partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def members_of_session(leader: RunningProcess) -> list[RunningProcess]:
    """The leader and all its descendants that kept its session.

    The system gives no pid away while a session of that number exists, so that orphans of a dead leader are its
    own, unless the pid runs again with another start time: then everything recorded is gone.
    """
    now = start_time(leader.pid)
    if now is not None and now != leader.started:
        return []
    found = []
    for pid in _all_pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader.pid and (started := start_time(pid)):
                found.append(RunningProcess(pid=pid, started=started))
    return found


def _all_pids() -> list[int]:
    if Path("/proc/self/stat").exists():
        return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]  # noqa: PTH208
    listing = subprocess.run(
        ["ps", "-axo", "pid="],  # noqa: S607  ps lies in different places
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return [int(word) for word in listing.split()]


def stop(process: RunningProcess, *, grace_s: float = GRACE_S) -> bool:
    """End a process and all its descendants; False when nothing of it was left.

    First the leader alone, which ends its own workers in order; then whoever is left; then by force.
    """
    left = members_of_session(process)
    if not left:
        _reap(process)
        return False
    _signal([process], signal.SIGTERM)
    _wait_until(lambda: not is_alive(process), wait_s=grace_s)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not members_of_session(process):
            break
        _signal(members_of_session(process), number)
        _wait_until(lambda: not members_of_session(process), wait_s=KILL_AFTER_S)
    _reap(process)
    return True


def _reap(process: RunningProcess) -> None:
    if (child := _children.get(process.pid)) and not start_time(process.pid):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(KILL_AFTER_S)
            del _children[process.pid]


def _signal(processes: list[RunningProcess], number: signal.Signals) -> None:
    for process in processes:
        if is_alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _wait_until(condition: Callable[[], bool], *, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, for an error message."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
