"""What a stack home remembers. Each start is recorded at once, so that `down` finds whatever `up` left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from include.local_stack.processes import RunningProcess
from include.local_stack.settings import Ports, StackError

STATE_FILE, LOCK_FILE, STACK_FILE, CREDENTIALS_FILE = "state.json", "lock", "stack.json", "credentials.json"


class StackState(msgspec.Struct, frozen=True):
    """One stack: its fixed choices and the processes that belong to it.

    `servers_folder` has the folders of the servers that run as another account.
    """

    opensearch_version: str
    ports: Ports
    servers_folder: str
    security: bool = False
    executor: str = "local"
    opensearch_nodes: int = 1
    processes: dict[str, RunningProcess] = {}


class Credentials(msgspec.Struct, frozen=True):
    """The key pair that clients sign with, the passwords of the servers; random, valid only on this stack."""

    access_key: str
    secret_key: str
    opensearch_admin_password: str = ""
    opensearch_worker_password: str = ""
    postgres_password: str = ""
    redis_password: str = ""

    def __repr__(self) -> str:
        """Hide the secrets from logs and tracebacks."""
        return f"Credentials(access_key={self.access_key!r})"

    def as_environment(self) -> dict[str, str]:
        """The variables that AWS clients read."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


class StateFile:
    """The state on disk. Several threads record what they started; each record is one atomic replacement."""

    def __init__(self, home: Path) -> None:
        self._path = home / STATE_FILE
        self._lock = threading.Lock()

    def read(self) -> StackState | None:
        """The recorded stack, or None where there is none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=StackState)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise StackError(
                f"{self._path}: {error}. It was written by another version of this project: "
                "end its processes by hand, then delete the file."
            ) from error

    def write(self, state: StackState) -> None:
        """Replace the recorded stack."""
        with self._lock:
            write_private(self._path, msgspec.json.format(msgspec.json.encode(state)))

    def record(self, name: str, process: RunningProcess) -> None:
        """Add or replace one process of the recorded stack."""
        with self._lock:
            state = msgspec.json.decode(self._path.read_bytes(), type=StackState)
            changed = msgspec.structs.replace(state, processes=state.processes | {name: process})
            write_private(self._path, msgspec.json.format(msgspec.json.encode(changed)))


@contextlib.contextmanager
def only_one_at_a_time(home: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the home's lock: a second `up` or `down` waits for the first."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another up or down works on {home}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def credentials_of(home: Path) -> Credentials:
    """The credentials of this home, made at the first call; what an older file lacks is added."""
    path = home / CREDENTIALS_FILE
    fresh = {
        "access_key": "LOCAL" + secrets.token_hex(8).upper(),
        "secret_key": secrets.token_urlsafe(30),
        "opensearch_admin_password": secrets.token_urlsafe(24),
        "opensearch_worker_password": secrets.token_urlsafe(24),
        "postgres_password": secrets.token_urlsafe(24),
        "redis_password": secrets.token_urlsafe(24),
    }
    known: dict[str, str] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    if fresh.keys() - known.keys():
        write_private(path, msgspec.json.encode(fresh | known))
    return msgspec.json.decode(path.read_bytes(), type=Credentials)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read; it appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)
