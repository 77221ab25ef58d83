"""A Redis server on loopback, the broker of Celery: the operating system's program, but not its service."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from include.local_stack import prerequisites, processes
from include.local_stack.opensearch_home import NODE_USER, own_parent
from include.local_stack.processes import Command
from include.local_stack.settings import LOOPBACK, StackError
from include.local_stack.state import write_private

SETTINGS = """bind {host}
port {port}
requirepass {password}
dir {folder}
# A message that was confirmed is there when the process starts again after whatever ended it.
appendonly yes
save ""
"""


class RedisServer:
    """One server.

    Args:
        folder: where its data is; the account that runs it can reach it.
        port: on loopback.
        password: of its default user.
        log: the file that the server's messages are appended to.
    """

    def __init__(self, folder: Path, port: int, password: str, log: Path) -> None:
        self._folder, self._port, self._password, self._log = folder, port, password, log

    @property
    def url(self) -> str:
        """The database that Celery uses, with the password."""
        return f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"

    def command(self) -> Command:
        """How to start it; its configuration is written here, because a password in an argument shows in `ps`."""
        program = shutil.which("redis-server")
        if program is None:
            raise StackError(prerequisites.remedy(prerequisites.missing_for_celery))
        own_parent(self._folder)
        self._folder.mkdir(exist_ok=True, mode=0o700)
        settings = SETTINGS.format(host=LOOPBACK, port=self._port, password=self._password, folder=self._folder)
        write_private(self._folder / "redis.conf", settings.encode())
        account = pwd.getpwnam(NODE_USER) if os.geteuid() == 0 else None
        if account:
            for path in (self._folder, self._folder / "redis.conf"):
                os.chown(path, account.pw_uid, account.pw_gid)
        return Command(
            name="redis",
            argv=(program, str(self._folder / "redis.conf")),
            env=processes.child_environment(),
            cwd=self._folder,
            log=self._log,
            is_healthy=self._answers,
            uid=account.pw_uid if account else None,
            gid=account.pw_gid if account else None,
        )

    def _answers(self) -> bool:
        from redis import Redis, RedisError

        try:
            with Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except RedisError:
            return False
