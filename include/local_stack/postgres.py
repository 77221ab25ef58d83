"""A PostgreSQL server on loopback for Airflow's metadata: the operating system's programs, but not its service."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from include.local_stack import prerequisites, processes
from include.local_stack.opensearch_home import NODE_USER, own_parent
from include.local_stack.processes import Command
from include.local_stack.settings import LOOPBACK, StackError

NAME = USER = "airflow"
SETTINGS = {
    "listen_addresses": LOOPBACK,
    # Sockets of the system's own service are elsewhere; TCP is enough.
    "unix_socket_directories": "",
    # Each of Airflow's processes has a pool of 15, Celery's result backends another one.
    "max_connections": "300",
}


class Postgres:
    """One server with its database.

    Args:
        folder: where its data is; the account that runs it can reach it.
        port: on loopback.
        password: of the user `airflow`, who owns the database.
        log: the file that the server's messages are appended to.
    """

    def __init__(self, folder: Path, port: int, password: str, log: Path) -> None:
        self._folder, self._port, self._password, self._log = folder, port, password, log
        # PostgreSQL refuses to run as root.
        self._account = pwd.getpwnam(NODE_USER) if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        """The database as SQLAlchemy names it, with the password."""
        return f"postgresql+psycopg2://{USER}:{self._password}@{LOOPBACK}:{self._port}/{NAME}"

    def prepare(self) -> None:
        """Create the data folder; does nothing if there is one."""
        if self._data.exists():
            return
        own_parent(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        secret = self._folder / "password"
        secret.write_text(self._password)
        if self._account:
            for path in (self._folder, secret):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        draft = self._folder / "draft"
        answer = subprocess.run(
            [
                *(_program("initdb"), "--username", USER, "--pwfile", secret, "--auth", "scram-sha-256"),
                *("--encoding", "UTF8", "--no-locale", "--pgdata", draft),
            ],
            cwd=self._folder,
            user=self._account.pw_uid if self._account else None,
            group=self._account.pw_gid if self._account else None,
            extra_groups=[] if self._account else None,
            capture_output=True,
            text=True,
            check=False,
        )
        secret.unlink()
        if answer.returncode:
            raise StackError(f"initdb failed in {self._folder}: {answer.stderr.strip()[-500:]}")
        draft.rename(self._data)

    def command(self) -> Command:
        """How to start it."""
        settings = SETTINGS | {"port": str(self._port)}
        return Command(
            name="postgres",
            argv=(
                *(str(_program("postgres")), "-D", str(self._data)),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ),
            env=processes.child_environment(),
            cwd=self._folder,
            log=self._log,
            is_healthy=self._answers,
            uid=self._account.pw_uid if self._account else None,
            gid=self._account.pw_gid if self._account else None,
            # "Fast": ends the sessions of all clients. SIGTERM would wait until they leave.
            stop_signal=signal.SIGINT,
        )

    def create_database(self) -> None:
        """Create Airflow's database, unless it exists."""
        import psycopg2
        from psycopg2.errors import DuplicateDatabase

        connection = psycopg2.connect(self._dsn("postgres"))
        connection.autocommit = True
        with contextlib.closing(connection), contextlib.suppress(DuplicateDatabase):
            connection.cursor().execute(f"CREATE DATABASE {NAME}")

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Return the rows of a query, none if the server does not answer."""
        import psycopg2

        try:
            with contextlib.closing(psycopg2.connect(self._dsn(NAME))) as connection:
                cursor = connection.cursor()
                cursor.execute(query, values)
                return list(cursor.fetchall())
        except psycopg2.OperationalError:
            return []

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _dsn(self, database: str) -> str:
        return f"host={LOOPBACK} port={self._port} user={USER} password={self._password} dbname={database}"

    def _answers(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(self._dsn("postgres")).close()
        except psycopg2.OperationalError:
            return False
        return True


def _program(name: str) -> Path:
    folder = prerequisites.postgres_programs()
    if folder is None:
        raise StackError(prerequisites.remedy(prerequisites.missing_for_celery))
    return folder / name
