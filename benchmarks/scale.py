"""What it costs to share the work of a run among several tasks, and how the cost grows with the source.

Prepare, ingest and commit are those of the package; each task is a process of its own over one folder, service and
index are stubs. Two cores are shared, so processor time is measured, not wall time.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks import client, night_source
from benchmarks.client import Job, Measured
from benchmarks.night_ours import FIRST_S, NIGHTS, SHARD_RECORDS, SOURCE, SOURCE_FOLDER, Nights, one_night
from benchmarks.report import Case, Outcome
from benchmarks.scale_ours import TASKS
from tests.core.counted_objects import CountedObjects

NAME = "scale"
RECORDS, QUICK_RECORDS, GROUPS = 1_000_000, 20_000, 2
SIZES, LARGE = (100_000, 1_000_000), 10_000_000
SHARE, EXPONENT = 1.1, 1.05
PHASES = ("prepare", "ingest", "commit")


def run(*, quick: bool = False, large: bool = False) -> Outcome:
    """Run one source by one process and by several; then sources of growing sizes, up to 10 M records if `large`."""
    records = QUICK_RECORDS if quick else RECORDS
    sizes = [QUICK_RECORDS // 10, QUICK_RECORDS] if quick else [*SIZES, *([LARGE] if large else [])]
    nights = {size: _measured(size) for size in sizes}
    found = {"one task": [nights[records][0]]}
    found |= {f"{GROUPS} groups of tasks, {task}": runs for task, runs in _spread(records).items()}
    for size, (first, second) in nights.items():
        found |= {f"{size:,} records, first load": [first], f"{size:,} records, 1 % changed": [second]}
    cases = [*_shares(found, records), *_growth(nights)]
    return Outcome(NAME, runs=found, remarks=_remarks(found, nights), cases=cases)


def _measured(records: int) -> tuple[Measured, Measured]:
    """Measure the first load of a source, and a night after 1 % of its records changed in every object."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        night_source.write_source(folder / SOURCE_FOLDER, records)
        options = {"night": NIGHTS.index(one_night), "number": 0}
        first = client.run("benchmarks.night_ours", Job("", "", name, options))
        night_source.edit(folder / SOURCE_FOLDER)
        return first, client.run("benchmarks.night_ours", Job("", "", name, {**options, "number": 1}))


def _spread(records: int) -> dict[str, list[Measured]]:
    """Measure the tasks of a first load, by task."""
    found: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        night_source.write_source(Path(name) / SOURCE_FOLDER, records)
        size_bytes = sum(path.stat().st_size for path in (Path(name) / SOURCE_FOLDER).iterdir())

        def do(task: str, count: int = 1) -> int:
            for number in range(count):
                options = {"task": TASKS.index(task), "number": number, "parts": count}
                options["split_bytes"] = -(-size_bytes // GROUPS)
                measured = client.run("benchmarks.scale_ours", Job("", "", name, options))
                found.setdefault(task, []).append(measured)
            return found[task][-1].counts["following"]

        for task, mapped in (("begin", ""), ("split", "read"), ("compare", "stage")):
            count = do(task)
            if mapped:
                do(mapped, count)
        do("reserve")
        do("ingest", GROUPS)
        do("end")
    if [len(found[task]) for task in ("read", "stage")] != [GROUPS, GROUPS]:
        raise RuntimeError(f"not {GROUPS} groups: { ({task: len(runs) for task, runs in found.items()}) }")
    return found


def _shares(found: dict[str, list[Measured]], records: int) -> list[Case]:
    one, several = found["one task"], [run for name, runs in found.items() if "groups" in name for run in runs]
    cases = []
    for phase in ("prepare", "ingest"):
        alone, shared = (sum(run.counts[f"{phase}_cpu_us"] for run in runs) / records for runs in (one, several))
        measured = f"{shared / alone:.2f} x: {shared:.1f} and {alone:.1f} CPU-µs a record"
        what = f"{phase} of {records:,} new records by {GROUPS} groups of tasks, against one"
        cases.append(Case(what, f"<= {SHARE:g} x", measured, shared <= SHARE * alone))
    return cases


def _growth(nights: dict[int, tuple[Measured, Measured]]) -> list[Case]:
    cases = []
    for number, what in enumerate(("first load", "1 % of the records changed in every object")):
        cpu_s = {size: _cpu_s(runs[number]) for size, runs in nights.items()}
        exponent = fitted_exponent(cpu_s)
        shown = ", ".join(f"{size:,}: {seconds / size * 1e6:.1f}" for size, seconds in cpu_s.items())
        bar = f"exponent <= {EXPONENT:g}"
        measured = f"exponent {exponent:.3f}; CPU-µs a record, {shown}"
        cases.append(Case(f"prepare, ingest and commit: {what}", bar, measured, exponent <= EXPONENT))
    return cases


def fitted_exponent(values: dict[int, float]) -> float:
    """Return the exponent of the power of the size that fits the values best (least squares of the logarithms)."""
    slope, _ = statistics.linear_regression([math.log(size) for size in values], [*map(math.log, values.values())])
    return slope


def _cpu_s(run: Measured) -> float:
    return sum(run.counts[f"{phase}_cpu_us"] for phase in PHASES) / 1e6


def _requests() -> tuple[Counter[str], Counter[str]]:
    """Count what one shard more, and one object more, add to the requests of a first load, without the submission."""
    base, shard, item = (_counted(objects, shards) for objects, shards in ((10, 1), (10, 2), (11, 1)))
    return shard - base, item - base


def _counted(objects: int, shards: int) -> Counter[str]:
    store = CountedObjects()
    nights = Nights(store)
    for number in range(objects):
        lines = map(night_source.record, range(number, shards * SHARD_RECORDS, objects))
        store.put_source(f"{SOURCE}{number:03d}.jsonl", b"".join(line + b"\n" for line in lines))
    nights.run(FIRST_S)
    return store.requests


def _peak_mb(runs: Sequence[Measured]) -> float:
    return max(run.peak_mb for run in runs)


def _remarks(found: dict[str, list[Measured]], nights: dict[int, tuple[Measured, Measured]]) -> list[str]:
    tasks = {name.rpartition(", ")[2]: runs for name, runs in found.items() if "groups" in name}
    parts = [f"{name} {sum(run.counts['prepare_cpu_us'] for run in runs) / 1e6:.1f}" for name, runs in tasks.items()]
    starts = sum(run.process_cpu_s - run.cpu_s for runs in tasks.values() for run in runs)
    requests = [", ".join(f"{kind} {count}" for kind, count in sorted(each.items())) for each in _requests()]
    peaks = ", ".join(f"{size:,}: {_peak_mb(runs):.0f} MiB" for size, runs in nights.items())
    return [
        f"records of {len(night_source.record(0))} B in {night_source.OBJECTS} objects, 384 floats each",
        "service and index are stubs, and the seconds of the service are not counted",
        f"CPU-s of prepare by task: {', '.join(parts[:6])}; all tasks start in {starts:.1f} CPU-s without Airflow",
        f"S3 requests for each shard: {requests[0]}; for each object: {requests[1]}; without the submission of jobs",
        f"peak of memory of one task: {peaks}",
        f"of compare: {tasks['compare'][0].peak_mb:.0f} MiB; of a read: {_peak_mb(tasks['read']):.0f} MiB",
    ]
