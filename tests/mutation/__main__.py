"""`make mutation`: breaks the core in a seeded sample of places, and looks whether a test without the stack fails.

First the tests run once and record which of them execute which line. Then each mutant runs the tests of its line, in a
copy of the repository. Fails if fewer than 92 % of the executed mutants are killed, those of HARMLESS not counted.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import coverage
import msgspec

from tests.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
CORE = "plugins/opensearch_batch/core"
ROOMS = ("jobs", "runs", "ingest")
# Those that run these rooms; the first run with all tests of the core would take half of the time.
TESTS = ("tests/core/jobs", "tests/core/runs", "tests/core/ingest", "tests/core/data_prepper", "tests/operators")
COPIED = ("plugins", "tests", "include", "dags", "docs", "benchmarks", "pyproject.toml", "README.md", "Makefile")
KILLED_AT_LEAST = 0.92
# A mutant whose tests do not end, such as a loop without an end, is killed.
HANGS_AFTER_S = 180.0
HARMLESS = Path(__file__).with_name("harmless.json")


class Harmless(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mutant that no test needs to kill: its module, its change, and why."""

    path: str
    change: str
    why: str


def main(*, seed: int, sample: int, workers: int, until: float, folder: Path) -> int:
    """Test a sample of mutants; return 0 if enough of them are killed."""
    paths = [path for room in ROOMS for path in sorted((ROOT / CORE / room).rglob("*.py"))]
    every = [mutant for path in paths for mutant in mutants(ROOT, str(path.relative_to(ROOT)))]
    harmless = {(each.path, each.change) for each in msgspec.json.decode(HARMLESS.read_bytes(), type=list[Harmless])}
    executed = _executed(folder)
    chosen = random.Random(seed).sample(every, min(sample, len(every)))  # noqa: S311 - to repeat a run, not to hide one
    wanted = [(mutant, tests) for mutant in chosen if (tests := executed.get((mutant.path, mutant.line)))]
    wanted = [(mutant, tests) for mutant, tests in wanted if (mutant.path, mutant.change()) not in harmless]
    print(f"{len(every)} mutants, seed {seed}: {len(chosen)} chosen, {len(wanted)} executed by tests", flush=True)
    copies: Queue[Path] = Queue()
    for number in range(workers):
        copies.put(_copy(folder / f"copy{number}"))
    survived = killed = 0
    with ThreadPoolExecutor(workers) as pool:
        verdicts = pool.map(lambda each: _is_killed(each[0], each[1], copies, until), wanted)
        for (mutant, _), is_killed in zip(wanted, verdicts, strict=True):
            killed += is_killed is True
            if is_killed is False:
                survived += 1
                print(f"SURVIVED {mutant.path}:{mutant.line}\n{mutant.change()}", flush=True)
    tried = killed + survived
    print(f"{killed} of {tried} killed ({killed / max(1, tried):.0%}); {len(wanted) - tried} not tried in time")
    return int(killed < KILLED_AT_LEAST * tried or not tried)


def _executed(folder: Path) -> dict[tuple[str, int], list[str]]:
    """Return the tests that execute each line of the core, as pytest names them."""
    data = folder / "coverage"
    settings = folder / "coveragerc"
    settings.write_text(f"[run]\ndynamic_context = test_function\ndata_file = {data}\nsource = {ROOT / CORE}\n")
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q"]
    tests = [*TESTS, *(str(path) for path in sorted((ROOT / "tests/core").glob("test_*.py")))]
    subprocess.run([*command, "-m", "not lab and not slow", *tests], cwd=ROOT, check=True)  # noqa: S603 - our own
    found: dict[tuple[str, int], list[str]] = {}
    read = coverage.CoverageData(basename=str(data))
    read.read()
    for measured in read.measured_files():
        path = str(Path(measured).relative_to(ROOT))
        for line, contexts in read.contexts_by_lineno(measured).items():
            found[path, line] = sorted({name for context in contexts if (name := _test(context))})
    return found


def _test(context: str) -> str | None:
    """Return the name of a test for pytest, given coverage's: ``tests.core.test_a.test_b``."""
    module, _, function = context.rpartition(".")
    if not module:
        # A fixture of pytest's own, or code that no test called.
        return None
    path = Path(*module.split(".")).with_suffix(".py")
    return f"{path}::{function}" if (ROOT / path).is_file() else None


def _copy(to: Path) -> Path:
    """Copy what the tests need, so that the working tree stays as it is."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=ignored)
        else:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to


def _is_killed(mutant: Mutant, tests: list[str], copies: Queue[Path], until: float) -> bool | None:
    """Return whether one of the tests fails on a mutant, None if there was no time left."""
    if time.monotonic() > until:
        return None
    copy = copies.get()
    changed = copy / mutant.path
    environment = {**os.environ, "PYTHONPATH": f"{copy}:{copy / 'plugins'}", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-q", "-x", "-m", "not lab and not slow", "-p", "no:cacheprovider", "--no-header", "--tb=no"]
    try:
        changed.write_text(mutant.code(), encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - our own interpreter and tests
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=copy,
            env=environment,
            capture_output=True,
            check=False,
            timeout=HANGS_AFTER_S,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        shutil.copy(ROOT / mutant.path, changed)
        copies.put(copy)
    return done.returncode != 0


def _options() -> Iterator[tuple[str, float]]:
    parser = argparse.ArgumentParser(prog="make mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--minutes", type=float, default=19.0)
    yield from vars(parser.parse_args()).items()


if __name__ == "__main__":
    given = dict(_options())
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(
            main(
                seed=int(given["seed"]),
                sample=int(given["sample"]),
                workers=int(given["workers"]),
                until=time.monotonic() + 60 * given["minutes"],
                folder=Path(scratch),
            )
        )
