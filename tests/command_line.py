"""The command line as people and scripts start it: a process of its own, its environment cleared of keys."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.waiting import WAIT_S

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "include" / "samples" / "requests"
WIDTH = "200"


def command(*arguments: str, cwd: Path = ROOT, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(  # noqa: S603 - our own program
        program(*arguments),
        cwd=cwd,
        input=stdin,
        env=environment_of(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )


def on_terminal(*arguments: str, typed: dict[str, str] | None = None, **environment: str) -> tuple[int, str]:
    """Run it with a terminal as stdin and stderr; return exit code and what was seen there.

    Args:
        arguments: its arguments.
        typed: what a person types when a text is shown.
        environment: variables.
    """
    ours, its = pty.openpty()
    with subprocess.Popen(  # noqa: S603 - our own program
        program(*arguments),
        cwd=ROOT,
        env=environment_of({"TERM": "xterm", "COLUMNS": WIDTH, **environment}),
        stdin=its,
        stderr=its,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        os.close(its)
        seen = _watch(ours, dict(typed or {}))
        os.close(ours)
        return process.wait(WAIT_S), seen


def _watch(terminal: int, typed: dict[str, str]) -> str:
    seen = ""
    while True:
        try:
            chunk = os.read(terminal, 1 << 16)
        except OSError:
            # Linux's way to say that nobody has the other end any more.
            return seen
        if not chunk:
            return seen
        seen += chunk.decode()
        for prompt in [prompt for prompt in typed if prompt in seen]:
            os.write(terminal, typed.pop(prompt).encode() + b"\n")


def program(*arguments: str) -> list[str]:
    """Return the process's arguments."""
    return [sys.executable, "-m", "opensearch_batch", *arguments]


def environment_of(variables: dict[str, str]) -> dict[str, str]:
    """Return the process's environment: this one's without keys and addresses, and these variables."""
    foreign = ("AWS_", "OPENSEARCH_", "OPENAI_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**inherited, "PYTHONPATH": str(ROOT / "plugins"), **variables}


def account(stdout: str) -> dict[str, Any]:
    """Read the one JSON object on stdout."""
    (line,) = stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def write_request(folder: Path, index: str, **members: Any) -> Path:
    """Write a request for `rows.jsonl` beside it; members replace its own."""
    request = {
        "index_name": index,
        "field_map": {"_id": "$.id", "t": "$.t"},
        "data_source": {"type": "local", "source": ["rows.jsonl"]},
        **members,
    }
    file = folder / "request.json"
    file.write_text(json.dumps(request))
    return file
