"""Writes `.env`, from which Docker Compose takes the secrets of docker-compose.yaml: `python3 -m include.compose`.

It needs the standard library only. The names begin with LOCAL_, so that no variable of the shell, such as a
developer's AWS keys, takes the place of one.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

FILE = Path(".env")


def _password() -> str:
    # Also part of URLs, and long enough for the Security plugin, which wants four kinds of characters.
    return f"{secrets.token_hex(16)}-aA1"


MAKERS: dict[str, Callable[[], str]] = {
    "LOCAL_FERNET_KEY": lambda: base64.urlsafe_b64encode(os.urandom(32)).decode(),
    "LOCAL_JWT_SECRET": lambda: secrets.token_urlsafe(48),
    "LOCAL_API_SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "LOCAL_AIRFLOW_PASSWORD": _password,
    "LOCAL_POSTGRES_PASSWORD": _password,
    "LOCAL_REDIS_PASSWORD": _password,
    "LOCAL_OPENSEARCH_ADMIN_PASSWORD": _password,
    "LOCAL_OPENSEARCH_WORKER_PASSWORD": _password,
    "LOCAL_S3_ACCESS_KEY": lambda: f"LOCAL{secrets.token_hex(8).upper()}",
    "LOCAL_S3_SECRET_KEY": lambda: secrets.token_urlsafe(30),
}


def main() -> int:
    """Write the variables that the file lacks; keep the others, with which volumes may have been made."""
    present = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    known = {line.partition("=")[0] for line in present}
    added = [f"{name}={make()}" for name, make in MAKERS.items() if name not in known]
    FILE.touch(mode=0o600)
    FILE.write_text("".join(f"{line}\n" for line in (*present, *added)), encoding="utf-8")
    sys.stdout.write(f"{FILE}: {len(added)} of {len(MAKERS)} variables written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
