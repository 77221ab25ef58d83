"""Documents a second into a real node on the first load, with ledger and store written, against the code before them.

The seconds are those of ingest and of the commit; `prepare` and the service come before.

Both run in turn on one node, each in a process of its own, with a fresh index and a work prefix of its own. The tree
of the earlier code is taken from this repository's history.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import client, night_source, node
from benchmarks.client import Job, Measured
from benchmarks.night_ours import NIGHTS, SOURCE_FOLDER, loaded
from benchmarks.night_service import INDEX_BODY
from benchmarks.others import Others, in_turn
from benchmarks.report import Case
from include.local_stack.settings import REPOSITORY

EARLIER = "9821e07"
ROWS, QUICK_ROWS, RUNS, QUICK_RUNS, BAR = 5_000, 1_000, 5, 1, 0.97
NOW, BEFORE = "first load", f"first load by {EARLIER}"


def measure(*, quick: bool = False) -> dict[str, list[Measured]]:
    """Load the same source by both, in turn."""
    rows, runs = (QUICK_ROWS, QUICK_RUNS) if quick else (ROWS, RUNS)
    with tempfile.TemporaryDirectory(prefix="night-speed-") as name, node.started() as target:
        source, tree = Path(name) / "source", Path(name) / "tree"
        night_source.write_source(source, rows)
        _check_out(EARLIER, tree)
        others = Others(target.cpu_s)

        def contender(load: Callable[[Job], Measured]) -> Callable[[], Measured]:
            def once() -> Measured:
                with tempfile.TemporaryDirectory(dir=name) as folder:
                    shutil.copytree(source, Path(folder) / SOURCE_FOLDER)
                    options = {"night": NIGHTS.index(loaded), "number": 0, "vectors": rows}
                    measured = load(Job(target.url, node.INDEX, folder, options))
                target.refuse_other_count(rows)
                return measured

            return lambda: others.least_disturbed(once, before=lambda: target.fresh_index(INDEX_BODY))

        return client.alternate({NOW: contender(_now), BEFORE: contender(lambda job: _before(job, tree))}, runs=runs)


def case(found: dict[str, list[Measured]]) -> Case:
    """Return both speeds."""
    now, before = (statistics.median(run.documents_per_s for run in found[name]) for name in (NOW, BEFORE))
    measured = f"{now / before:.2f}: {now:,.0f} and {before:,.0f} documents/s; {in_turn(found)}"
    what = "documents/s into the node, first load, with ledger and store written"
    return Case(what, f">= {BAR:g} of {EARLIER}'s", measured, now / before >= BAR)


def _now(job: Job) -> Measured:
    measured = client.run("benchmarks.night_ours", job)
    seconds = (measured.counts["ingest_us"] + measured.counts["commit_us"]) / 1e6
    return msgspec.structs.replace(measured, seconds=seconds)


def _before(job: Job, tree: Path) -> Measured:
    """Run the earlier code, which prints the seconds of its ingest before its result."""
    script = Path(__file__).with_name("night_before.py")
    command = [sys.executable, str(script), msgspec.json.encode(job).decode()]
    environ = {**os.environ, "PYTHONPATH": f"{tree}:{tree / 'plugins'}", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environ, cwd=tree)  # noqa: S603 - our script
    seconds, result = done.stdout.splitlines()[-2:]
    return msgspec.structs.replace(msgspec.json.decode(result, type=Measured), seconds=float(seconds))


def _check_out(commit: str, tree: Path) -> None:
    """Write the files of a commit of this repository."""
    tree.mkdir()
    archive = ["git", "-C", str(REPOSITORY), "archive", commit, "plugins", "benchmarks"]
    packed = subprocess.run(archive, check=True, stdout=subprocess.PIPE)  # noqa: S603 - no shell
    subprocess.run(["tar", "-x", "-C", str(tree)], check=True, input=packed.stdout)  # noqa: S603, S607 - the same
