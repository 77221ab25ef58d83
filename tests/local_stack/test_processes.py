"""Processes are known by pid and start time; whoever took over a pid is never touched."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import msgspec
import pytest

from include.local_stack import processes
from include.local_stack.processes import Command, RunningProcess, child_environment
from include.local_stack.settings import StackError, StackOptions, choose_ports
from include.local_stack.state import StackState, StateFile, credentials_of, write_private
from include.local_stack.supervisor import Supervisor, stays_alive
from tests.stored import present
from tests.waiting import WAIT_S, eventually

SLEEP = f"import time; time.sleep({2 * WAIT_S})"
SLEEP_WITH_CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); {SLEEP}"


def command(folder: Path, code: str, *, name: str = "sleeper", wait_s: float = WAIT_S) -> Command:
    """A Python process that runs some code; it counts as healthy a moment after its start."""
    return Command(
        name=name,
        argv=(sys.executable, "-c", code),
        env=child_environment(),
        cwd=folder,
        log=folder / f"{name}.log",
        is_healthy=stays_alive(0.1),
        wait_s=wait_s,
    )


def never_healthy(one: Command) -> Command:
    """Return a command whose process can only end or be waited for in vain, however slowly it starts."""
    return msgspec.structs.replace(one, is_healthy=lambda: False)


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    """The state of a stack without processes."""
    state = StateFile(tmp_path)
    state.write(StackState("2.19.1", choose_ports(StackOptions(free_ports=True)), str(tmp_path / "node")))
    return state


def test_stop_ends_a_process_and_its_children(tmp_path: Path) -> None:
    """No descendant survives its leader."""
    process = processes.start(command(tmp_path, SLEEP_WITH_CHILD))
    eventually(lambda: len(processes.members_of_session(process)) == 3, "the program and its child")
    assert processes.stop(process)
    assert not processes.is_alive(process)
    assert processes.members_of_session(process) == []


def test_stop_finds_the_program_of_a_dead_parent(tmp_path: Path) -> None:
    """A parent that was killed leaves its program, which goes on; it is ended too, with its children."""
    process = processes.start(command(tmp_path, SLEEP_WITH_CHILD))
    eventually(lambda: len(processes.members_of_session(process)) == 3, "the program and its child")
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: not processes.is_alive(process), "the end of the parent")
    assert len(processes.members_of_session(process)) == 2
    assert processes.stop(process)
    assert processes.members_of_session(process) == []


def test_stop_uses_force_on_what_ignores_it(tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed when its grace is over."""
    process = processes.start(command(tmp_path, STUBBORN))
    eventually(lambda: "ready" in (tmp_path / "sleeper.log").read_text(), "the log line")
    assert processes.stop(process, grace_s=0.2)
    assert not processes.is_alive(process)


def test_a_program_that_ends_is_started_again(file: StateFile, tmp_path: Path) -> None:
    """Each time later, and only once it was healthy; `down` ends it for good."""
    supervisor = Supervisor(file, lambda _: None)
    supervisor.ensure(command(tmp_path, SLEEP))
    parent = _only_process(file)
    killed = _end_program(parent)
    eventually(lambda: _programs(parent) not in ([], [killed]), "the second one")
    killed = _end_program(parent)
    eventually(lambda: _programs(parent) not in ([], [killed]), "the third one")
    log = (tmp_path / "sleeper.log").read_text()
    assert re.findall(r"ended with -9 after \d+ s, starts again in (.*) s", log) == ["0.5", "1.0"]
    assert _only_process(file) == parent
    assert supervisor.stop_all() == ["sleeper"]
    assert processes.members_of_session(parent) == []


def test_a_program_whose_state_is_in_memory_stays_down(file: StateFile, tmp_path: Path) -> None:
    """Started again, it would be empty, and look as if it served."""
    supervisor = Supervisor(file, lambda _: None)
    supervisor.ensure(msgspec.structs.replace(command(tmp_path, SLEEP), restarts=False))
    parent = _only_process(file)
    _end_program(parent)
    eventually(lambda: not processes.is_alive(parent), "the end of the parent")


def test_a_program_is_ended_by_its_own_signal(tmp_path: Path) -> None:
    """PostgreSQL takes SIGTERM for a request to wait until all clients have left."""
    code = (
        f"import signal; signal.signal(signal.SIGINT, lambda *_: exit('in order')); print('ready', flush=True); {SLEEP}"
    )
    process = processes.start(msgspec.structs.replace(command(tmp_path, code), stop_signal=signal.SIGINT))
    log = tmp_path / "sleeper.log"
    eventually(lambda: "ready" in log.read_text(), "the log line")
    assert processes.stop(process)
    assert "in order" in log.read_text()


def test_a_reused_pid_is_not_touched(tmp_path: Path) -> None:
    """The same pid with another start time is a stranger: not alive for us, and not stopped."""
    stranger = processes.start(command(tmp_path, SLEEP))
    recorded = RunningProcess(pid=stranger.pid, started="1")
    try:
        assert not processes.is_alive(recorded)
        assert not processes.stop(recorded)
        assert processes.is_alive(stranger)
    finally:
        processes.stop(stranger)


def test_a_process_that_serves_is_not_started_again(file: StateFile, tmp_path: Path) -> None:
    """A second `ensure` keeps the process; after its death it is replaced."""
    said: list[str] = []
    supervisor = Supervisor(file, said.append)
    supervisor.ensure(command(tmp_path, SLEEP))
    first = _only_process(file)
    supervisor.ensure(command(tmp_path, SLEEP))
    assert _only_process(file) == first
    processes.stop(first)
    supervisor.ensure(command(tmp_path, SLEEP))
    assert _only_process(file) != first
    assert supervisor.stop_all() == ["sleeper"]
    assert [line for line in said if "runs already" in line]


def test_a_failed_start_shows_the_end_of_its_log(file: StateFile, tmp_path: Path) -> None:
    """The error names the process, quotes its last lines and says where the log is."""
    broken = never_healthy(command(tmp_path, "raise SystemExit('no database here')", name="broken"))
    with pytest.raises(StackError, match=r"broken ended") as raised:
        Supervisor(file, lambda _: None).ensure(broken)
    assert "no database here" in str(raised.value)
    assert str(tmp_path / "broken.log") in str(raised.value)


def test_the_first_failure_ends_the_waiting_of_others(file: StateFile, tmp_path: Path) -> None:
    """Parts that start at the same time do not wait for each other after one has failed."""
    never = never_healthy(command(tmp_path, SLEEP, name="never", wait_s=2 * WAIT_S))
    broken = never_healthy(command(tmp_path, "raise SystemExit(1)", name="broken"))
    supervisor = Supervisor(file, lambda _: None)
    began = time.monotonic()
    with pytest.raises(StackError, match="broken ended"):
        supervisor.in_parallel([lambda: supervisor.ensure(never), lambda: supervisor.ensure(broken)])
    assert time.monotonic() - began < WAIT_S
    assert supervisor.stop_all() == ["never"]


def test_children_do_not_see_the_callers_secrets() -> None:
    """AWS, Airflow and OpenAI variables of the person who calls stay with that person."""
    mine = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "s", "AIRFLOW__CORE__FERNET_KEY": "f", "OPENAI_API_KEY": "o"}
    assert set(child_environment(mine)) == {"PATH", "NO_PROXY", "no_proxy"}


def test_credentials_are_made_once_and_private(tmp_path: Path) -> None:
    """The key pair stays the same for a home, only its owner reads it, and its repr holds no secret."""
    made = credentials_of(tmp_path)
    assert credentials_of(tmp_path) == made
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert made.secret_key not in repr(made)


def test_a_private_file_replaces_a_public_one(tmp_path: Path) -> None:
    """The mode of the file that stood there does not matter."""
    path = tmp_path / "secret"
    path.write_text("old")
    write_private(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)


def test_a_state_of_another_version_is_a_clear_error(tmp_path: Path) -> None:
    """A state file that cannot be read is never overwritten: its processes may run."""
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(StackError, match=r"state\.json.*end its processes by hand"):
        StateFile(tmp_path).read()


def _only_process(file: StateFile) -> RunningProcess:
    state = present(file.read())
    (process,) = state.processes.values()
    return process


def _end_program(parent: RunningProcess) -> RunningProcess:
    (program,) = eventually(lambda: _programs(parent), "the program")
    os.kill(program.pid, signal.SIGKILL)
    return program


def _programs(parent: RunningProcess) -> list[RunningProcess]:
    return [process for process in processes.members_of_session(parent) if process != parent]
