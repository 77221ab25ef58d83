"""A figure never stands alone: rival, ratio, bar, sizes, versions, machine and command stand beside it.

Results are written as JSON with every run and as a markdown table, so that a claim can be looked up.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec
from rich.table import Table

from benchmarks.client import Measured
from benchmarks.node import HEAP, VERSION

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("opensearch-py", "jsonpath-ng", "msgspec")
COLUMNS = ("what", "rival", "ours", "rival's", "ratio", "bar", "holds")
GIB = 1 << 30


class Comparison(msgspec.Struct, frozen=True):
    """One row of the table; without a bar `holds` is None, without a rival `theirs` and `ratio` are None."""

    what: str
    rival: str
    ours: float
    theirs: float | None
    unit: str
    ratio: float | None = None
    bar: str = ""
    holds: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Return what stands in `COLUMNS`."""
        holds = {True: "yes", False: "NO", None: ""}[self.holds]
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} x"
        theirs = "" if self.theirs is None else f"{_number(self.theirs)} {self.unit}"
        return self.what, self.rival, f"{_number(self.ours)} {self.unit}", theirs, ratio, self.bar, holds


class Outcome(msgspec.Struct, frozen=True):
    """What a benchmark found: its comparisons, all runs behind them, and what has to be known beside."""

    name: str
    comparisons: list[Comparison]
    runs: dict[str, list[Measured]] = {}
    remarks: list[str] = []


class Surroundings(msgspec.Struct, frozen=True):
    """Where and how a benchmark ran; `load` is the machine's load of the minute before."""

    cores: int
    gib: float
    system: str
    python: str
    opensearch: str
    heap: str
    packages: dict[str, str]
    date: str
    command: str
    load: float

    @classmethod
    def here(cls, command: str) -> Surroundings:
        """Look around."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(
            cores=os.cpu_count() or 0,
            gib=round(memory / GIB, 1),
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            opensearch=VERSION,
            heap=HEAP,
            packages={name: version(name) for name in PACKAGES},
            date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            command=command,
            load=round(os.getloadavg()[0], 1),
        )

    def sentence(self) -> str:
        """Say it in one line."""
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return (
            f"`{self.command}`, {self.date}: {self.cores} cores, {self.gib} GiB, {self.system}, "
            f"load {self.load} before; Python {self.python}, OpenSearch {self.opensearch} "
            f"with a heap of {self.heap}, {packages}"
        )


class _File(msgspec.Struct, frozen=True):
    surroundings: Surroundings
    outcome: Outcome


def write(outcome: Outcome, surroundings: Surroundings, folder: Path = RESULTS) -> None:
    """Write ``<name>.json`` with all runs and ``<name>.md`` with the table."""
    folder.mkdir(parents=True, exist_ok=True)
    content = msgspec.json.encode(_File(surroundings, outcome))
    (folder / f"{outcome.name}.json").write_bytes(msgspec.json.format(content) + b"\n")
    (folder / f"{outcome.name}.md").write_text(markdown(outcome, surroundings))


def markdown(outcome: Outcome, surroundings: Surroundings) -> str:
    """Return the table and its surroundings as markdown."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(comparison.cells() for comparison in outcome.comparisons)]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    remarks = "".join(f"- {remark}\n" for remark in outcome.remarks)
    return f"# {outcome.name}\n\n{surroundings.sentence()}\n\n{table}" + (f"\n{remarks}" if remarks else "")


def terminal(outcomes: list[Outcome], title: str) -> Table:
    """Return one table of all comparisons for a terminal."""
    table = Table(*COLUMNS, title=title)
    for outcome in outcomes:
        for comparison in outcome.comparisons:
            table.add_row(*comparison.cells())
    return table


def _number(value: float) -> str:
    """Return three significant digits, thousands marked."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
