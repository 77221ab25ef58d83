"""Who sits at a terminal sees progress and may stop it; a log sees neither a bar nor an unfinished account."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import ROOT, account, command, environment_of, on_terminal, program, write_request
from tests.faults.proxy import Proxy, first
from tests.lab import Lab
from tests.waiting import WAIT_S

ROWS = "".join(f'{{"id":{number},"t":"{number}"}}\n' for number in range(5))


@pytest.fixture
def proxy(lab: Lab) -> Iterator[Proxy]:
    """A door in front of the node."""
    door = Proxy(lab.stack.addresses.opensearch)
    yield door
    door.close()


def test_progress_is_shown_on_a_terminal_and_nowhere_else(lab: Lab, index: str, tmp_path: Path) -> None:
    """Rows, documents a second and dead letters; bytes too, as the source is not compressed."""
    (tmp_path / "rows.jsonl").write_text(f"{ROWS}oops\n")
    arguments = ("ingest", str(write_request(tmp_path, index)), "--opensearch-url", lab.stack.addresses.opensearch)
    code, seen = on_terminal(*arguments)
    assert code == 1, seen
    assert "6 rows" in seen
    assert "documents/s  1 dead letters" in seen
    assert "/90 bytes" in seen
    assert command(*arguments, "--force", FORCE_COLOR="1").stderr == ""


def test_ctrl_c_loses_nothing(lab: Lab, proxy: Proxy, index: str, tmp_path: Path) -> None:
    """Exit code 130 and the way on; the same command then writes only what is missing."""
    (tmp_path / "rows.jsonl").write_text(ROWS)
    file = write_request(tmp_path, index, max_body_bytes=1, max_in_flight=1)
    arguments = ("ingest", str(file), "--opensearch-url", proxy.url, "--json")
    arrived, released = threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        assert released.wait(WAIT_S)

    proxy.on("POST .*/_bulk", 2, first(hold))
    with subprocess.Popen(  # noqa: S603 - our own program
        program(*arguments), cwd=ROOT, env=environment_of({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert arrived.wait(WAIT_S)
        process.send_signal(signal.SIGINT)
        released.set()
        stdout, stderr = process.communicate(timeout=WAIT_S)
    assert (process.returncode, stderr) == (130, "")
    told = account(stdout)
    assert (told["state"], told["error"]) == ("FAILED", "stopped: the same command resumes")
    done = account(command(*arguments).stdout)
    assert (done["state"], done["read"], done["indexed"] + done["unchanged"]) == ("DONE", 5, 5)
    assert lab.writes(index) == 5
