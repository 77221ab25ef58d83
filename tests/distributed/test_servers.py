"""PostgreSQL and Redis of the local stack: their own processes and data, killed and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from include.local_stack import opensearch_home, processes
from include.local_stack.postgres import Postgres
from include.local_stack.redis_server import RedisServer
from include.local_stack.settings import Ports, StackOptions, choose_ports
from include.local_stack.state import StackState, StateFile
from include.local_stack.supervisor import Supervisor
from tests.stored import present
from tests.waiting import eventually

PASSWORD = "secret-of-the-test"


@pytest.fixture
def ports() -> Ports:
    """Free ports."""
    return choose_ports(StackOptions(free_ports=True))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that the servers' account can reach."""
    folder = opensearch_home.servers_folder(tmp_path)
    yield folder / "server"
    opensearch_home.remove(folder / "server")


@pytest.fixture
def supervisor(tmp_path: Path, ports: Ports) -> Iterator[Supervisor]:
    """Starts processes, and ends them after the test."""
    state = StateFile(tmp_path)
    state.write(StackState("2.19.1", ports, str(tmp_path)))
    supervisor = Supervisor(state, lambda _: None)
    yield supervisor
    supervisor.stop_all()


def programs(home: Path, name: str) -> list[int]:
    """Return the pids of a process without its parent, which starts it again."""
    parent = present(StateFile(home).read()).processes[name]
    return [each.pid for each in processes.members_of_session(parent) if each != parent]


def test_postgres_keeps_its_data_when_it_is_killed(
    tmp_path: Path, folder: Path, ports: Ports, supervisor: Supervisor
) -> None:
    """It is started again; nobody reads its data without the password, and its data folder is made once."""
    server = Postgres(folder, ports.postgres, PASSWORD, tmp_path / "logs" / "postgres.log")
    server.prepare()
    supervisor.ensure(server.command())
    server.create_database()
    server.create_database()
    created = "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7); COMMIT; SELECT n FROM kept"
    assert server.rows(created) == [(7,)]
    for pid in programs(tmp_path, "postgres"):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: server.rows("SELECT n FROM kept"), "the server") == [(7,)]
    server.prepare()
    assert server.rows("SELECT n FROM kept") == [(7,)]
    stranger = Postgres(folder, ports.postgres, "another", tmp_path / "logs" / "postgres.log")
    assert stranger.rows("SELECT n FROM kept") == []
    assert folder.stat().st_mode & 0o077 == 0


def test_postgres_ends_although_clients_stay(
    tmp_path: Path, folder: Path, ports: Ports, supervisor: Supervisor
) -> None:
    """In order, which its log tells."""
    log = tmp_path / "logs" / "postgres.log"
    server = Postgres(folder, ports.postgres, PASSWORD, log)
    server.prepare()
    supervisor.ensure(server.command())
    server.create_database()
    import psycopg2

    client = psycopg2.connect(server.url.replace("postgresql+psycopg2", "postgresql"))
    assert supervisor.stop_all() == ["postgres"]
    client.close()
    assert "database system is shut down" in log.read_text()


def test_redis_keeps_what_it_has_confirmed(tmp_path: Path, folder: Path, ports: Ports, supervisor: Supervisor) -> None:
    """A message that was queued is there after a kill; the password is in no argument."""
    server = RedisServer(folder, ports.redis, PASSWORD, tmp_path / "logs" / "redis.log")
    supervisor.ensure(server.command())
    with Redis.from_url(server.url) as client:
        client.lpush("queue", "message")
        (pid,) = programs(tmp_path, "redis")
        assert PASSWORD.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: programs(tmp_path, "redis") not in ([], [pid]), "the next process")
        eventually(server.command().is_healthy, "the server")
        assert client.lrange("queue", 0, -1) == [b"message"]
