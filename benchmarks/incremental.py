"""What one night costs a pipeline whose source hardly changed, and what LangChain's index API takes for the same night.

The source is on the local disk, service and index are stubs that count, and every night is a process of its own. The
first load is made once; each case starts from a copy of it. A case that is measured several times shows its median.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import client, environment, night_source, night_speed
from benchmarks.client import Job, Measured
from benchmarks.night_ours import NIGHTS, PHASES, SOURCE_FOLDER, a_week, a_year, four_changes, one_night, rebuilt
from benchmarks.report import Case, Outcome

NAME = "incremental"
RECORDS, QUICK_RECORDS, RUNS, QUICK_RUNS = 1_000_000, 20_000, 3, 1
CHANGED_OBJECTS = 3
NOTHING_S, OBJECT_S, RECORDS_S, MEMORY_MB, TEXT_SHARE = 1.0, 0.5, 100_000, 500, 0.5
RIVAL = Path(__file__).with_name("langchain.txt")
MIB, MB = 1 << 20, 1_000_000
Change = Callable[[Path], object]


def run(*, quick: bool = False) -> Outcome:
    """Load the source once, then measure one night after each change."""
    records, runs = (QUICK_RECORDS, QUICK_RUNS) if quick else (RECORDS, RUNS)
    with tempfile.TemporaryDirectory(prefix="incremental-") as name:
        bench = _Bench(Path(name), records)
        found = {
            "first load": [bench.first],
            "nothing changed": bench.nights(lambda _: None, runs=runs),
            "3 objects": bench.nights(lambda folder: night_source.edit(folder, objects=CHANGED_OBJECTS), runs=runs),
            "1 %": bench.nights(night_source.edit, runs=runs),
            "moved": bench.nights(night_source.move_all),
            "re-index": bench.nights(lambda _: None, rebuilt),
            "one record": bench.nights(lambda _: None, four_changes),
            "a year": [_measure(Path(name) / "year", a_week if quick else a_year, 0)],
            "LangChain": [bench.langchain()],
        }
    node = night_speed.measure(quick=quick)
    cases = [
        _nothing(found["nothing changed"]),
        _three(found["3 objects"]),
        _one_percent(found["1 %"]),
        _moved(found["moved"][0]),
        _again(found["re-index"][0]),
        _one_record(found["one record"][0]),
        _year(found["a year"][0]),
        _langchain(found["LangChain"][0], found["1 %"]),
        night_speed.case(node),
    ]
    return Outcome(NAME, runs=found | node, remarks=_remarks(found, records), cases=cases)


class _Bench:
    """A loaded source of so many records, and copies of it."""

    def __init__(self, folder: Path, records: int) -> None:
        self._folder, self._base = folder, folder / "base"
        night_source.write_source(self._base / SOURCE_FOLDER, records)
        self.first = _measure(self._base, one_night, 0)

    def nights(
        self, change: Change, night: Callable[..., dict[str, int]] = one_night, *, runs: int = 1
    ) -> list[Measured]:
        """Measure a night after a change, so many times."""
        return [self._on_a_copy(change, lambda folder: _measure(folder, night, 1)) for _ in range(runs)]

    def langchain(self) -> Measured:
        """Measure LangChain's night after every hundredth text of the loaded source was edited."""
        python = str(environment.python_with(RIVAL))

        def measure(folder: Path) -> Measured:
            job = Job("", str(folder / "records.sqlite"), str(folder / SOURCE_FOLDER))
            return client.run("benchmarks.night_langchain", job, python=python)

        def load_edit_measure(folder: Path) -> Measured:
            measure(folder)
            night_source.edit(folder / SOURCE_FOLDER)
            return measure(folder)

        return self._on_a_copy(lambda _: None, load_edit_measure)

    def _on_a_copy(self, change: Change, measure: Callable[[Path], Measured]) -> Measured:
        copy = self._folder / "copy"
        # Files are replaced, never changed.
        shutil.copytree(self._base, copy, copy_function=os.link)
        try:
            change(copy / SOURCE_FOLDER)
            return measure(copy)
        finally:
            shutil.rmtree(copy)


def _measure(folder: Path, night: Callable[..., dict[str, int]], number: int) -> Measured:
    options = {"night": NIGHTS.index(night), "number": number}
    return client.run("benchmarks.night_ours", Job("", "", str(folder), options))


def _nothing(runs: list[Measured]) -> Case:
    seconds = statistics.median(run.counts["prepare_us"] / 1e6 for run in runs)
    counts = runs[0].counts
    holds = seconds <= NOTHING_S and not (counts["paid"] or counts["operations"] or counts["opened"])
    measured = f"{seconds:.3f} s; {_counts(runs[0])}, {counts['opened']} objects opened"
    bar = f"<= {NOTHING_S:g} s beside the listing; 0 paid, 0 index operations, no object opened"
    return Case("nothing changed", bar, measured, holds)


def _three(runs: list[Measured]) -> Case:
    seconds = statistics.median(_seconds(run) for run in runs) / CHANGED_OBJECTS
    measured = f"{seconds:.2f} s a changed object; {_counts(runs[0])}"
    what = f"{CHANGED_OBJECTS} of {night_source.OBJECTS} objects changed"
    return Case(what, f"<= {OBJECT_S:g} s a changed object", measured, seconds <= OBJECT_S)


def _one_percent(runs: list[Measured]) -> Case:
    speed, peak_mb = statistics.median(map(_records_a_cpu_s, runs)), max(map(_peak_mb, runs))
    measured = f"{speed:,.0f} records/s a core, {peak_mb:.0f} MB; {_counts(runs[0])}"
    bar = f">= {RECORDS_S:,} records/s a core; <= {MEMORY_MB} MB"
    holds = speed >= RECORDS_S and peak_mb <= MEMORY_MB
    return Case("1 % of the records changed in every object", bar, measured, holds)


def _moved(run: Measured) -> Case:
    peak_mb = _peak_mb(run)
    holds = not (run.counts["paid"] or run.counts["operations"]) and peak_mb <= MEMORY_MB
    measured = f"{_counts(run)}, {peak_mb:.0f} MB; {_seconds(run):.1f} s"
    bar = f"0 paid, 0 index operations; <= {MEMORY_MB} MB"
    return Case("all records moved to other objects", bar, measured, holds)


def _again(run: Measured) -> Case:
    counts, peak_mb = run.counts, _peak_mb(run)
    written, whole = (counts["operations"] / seconds for seconds in (counts["ingest_cpu_us"] / 1e6, _cpu_s(run)))
    text = counts["vectors"] / (counts["text_cpu_us"] / 1e6)
    measured = (
        f"{written / text:.2f}: {written:,.0f} documents/s a core (with prepare and commit {whole:,.0f}), text alone "
        f"{text:,.0f} vectors/s a core; {counts['paid']} paid, {peak_mb:.0f} MB"
    )
    holds = written / text >= TEXT_SHARE and not counts["paid"] and peak_mb <= MEMORY_MB
    bar = f">= {TEXT_SHARE:g} of float32-to-text alone; <= {MEMORY_MB} MB"
    return Case("re-index of all from the store into a stub that takes everything", bar, measured, holds)


def _one_record(run: Measured) -> Case:
    paid, operations = ([run.counts[f"{what}_{at}"] for at in range(4)] for what in ("paid", "operations"))
    measured = f"paid {_row(paid)}; index operations {_row(operations)}"
    bar = "paid 1, 1, 1, 0; index operations 1, 1, 1, 1"
    return Case("one record appended, inserted on top, edited, deleted", bar, measured, measured == bar)


def _year(run: Measured) -> Case:
    counts, new = run.counts, run.counts["nights"] * night_source.NEW_A_NIGHT
    measured = (
        f"{counts['paid'] / new:.1f} paid, {counts['operations'] / new:.1f} index operations a new record; "
        f"{_seconds(run) / counts['nights']:.2f} s a night"
    )
    what = f"a year of nights, {night_source.NEW_A_NIGHT} new records each, one prefix"
    return Case(what, "1.0 paid a new record", measured, counts["paid"] == new)


def _langchain(theirs: Measured, ours: list[Measured]) -> Case:
    speed, peak_mb = statistics.median(map(_records_a_cpu_s, ours)), max(map(_peak_mb, ours))
    their_speed = theirs.documents / theirs.cpu_s
    measured = (
        f"{speed:,.0f} and {their_speed:,.0f} records/s a core ({speed / their_speed:.0f} x), "
        f"{peak_mb:.0f} and {_peak_mb(theirs):.0f} MB; index operations "
        f"{ours[0].counts['operations']:,} and {theirs.counts['operations']:,}"
    )
    what = "1 % changed in every object: this package, and LangChain's index API with its SQL record manager on SQLite"
    return Case(what, "side by side", measured)


def _remarks(found: dict[str, list[Measured]], records: int) -> list[str]:
    first, theirs = found["first load"][0], found["LangChain"][0]
    return [
        f"{records:,} records of {len(night_source.record(0))} B in {night_source.OBJECTS} objects, 384 floats each",
        "service and index are stubs, and the seconds of the service are not counted",
        f"first load: {_seconds(first):.0f} s, {_peak_mb(first):.0f} MB",
        f"LangChain ({', '.join(_pins())}): {theirs.documents / theirs.seconds:,.0f} records/s of wall clock",
        "LangChain adds an edited document and deletes its old one; its embedding costs nothing here",
    ]


def _pins() -> list[str]:
    lines = RIVAL.read_text().splitlines()
    return [line.replace("==", " ") for line in lines if line.startswith(("langchain-core", "langchain-classic"))]


def _seconds(run: Measured) -> float:
    """Return the wall seconds of a night without its service."""
    return sum(run.counts[f"{name}_us"] for name in PHASES if name != "service") / 1e6


def _cpu_s(run: Measured) -> float:
    """Return the processor seconds of a night without its service."""
    return sum(run.counts[f"{name}_cpu_us"] for name in PHASES if name != "service") / 1e6


def _records_a_cpu_s(run: Measured) -> float:
    return run.counts["records"] / _cpu_s(run)


def _peak_mb(run: Measured) -> float:
    return run.peak_mb * MIB / MB


def _counts(run: Measured) -> str:
    return f"{run.counts['paid']:,} paid, {run.counts['operations']:,} index operations"


def _row(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
