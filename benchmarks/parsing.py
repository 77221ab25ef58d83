"""A hundred pipeline files to DAGs, as Airflow's parser reads them every few seconds, against a DAG in Python."""

from __future__ import annotations

import os
import runpy
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.client import Measured
from benchmarks.report import Comparison, Outcome

NAME = "parsing"
ROOT = Path(__file__).resolve().parent.parent
FILES, RUNS = 100, 5
BAR_MS = 50
OURS, BY_HAND = "pipeline file", "the same DAG in Python, dags/example_by_hand.py"


def run(*, quick: bool = False) -> Outcome:  # noqa: ARG001 - it takes seconds
    """Read all files several times; modules are loaded before, as they are in a parser that has read one."""
    with tempfile.TemporaryDirectory(prefix="parsing-") as name:
        # Airflow makes a home when it is imported.
        os.environ.setdefault("AIRFLOW_HOME", str(Path(name) / "airflow"))
        from opensearch_batch.dag_factory.pipelines import dags_of_folder

        folder = Path(name) / "include"
        (folder / "pipelines").mkdir(parents=True)
        sources = sorted((ROOT / "include" / "pipelines").glob("*.yaml"))
        for number in range(FILES):
            shutil.copy(sources[number % len(sources)], folder / "pipelines" / f"p{number:03d}.yaml")

        def read() -> int:
            found = dags_of_folder(folder / "pipelines")
            if found.errors:
                raise RuntimeError(str(found.errors[0]))
            return len(found.dags)

        def by_hand() -> int:
            for _ in range(FILES):
                runpy.run_path(str(ROOT / "dags" / "example_by_hand.py"))
            return FILES

        found = {
            name: [_timed(subject) for _ in range(RUNS + 1)][1:] for name, subject in ((OURS, read), (BY_HAND, by_hand))
        }
    ours, theirs = (
        1000 * statistics.median(run.seconds / run.documents for run in found[who]) for who in (OURS, BY_HAND)
    )
    bar = f"<= {BAR_MS} ms"
    what = f"one of {FILES} pipeline files to its DAG"
    return Outcome(NAME, [Comparison(what, BY_HAND, ours, theirs, "ms", ours / theirs, bar, ours <= BAR_MS)], found)


def _timed(subject: Callable[[], int]) -> Measured:
    began, cpu_began = time.perf_counter(), time.process_time()
    count = subject()
    return Measured(count, time.perf_counter() - began, time.process_time() - cpu_began)
