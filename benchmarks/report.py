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
from rich.console import Group
from rich.table import Table

from benchmarks.client import Measured
from benchmarks.node import HEAP, VERSION

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("opensearch-py", "jsonpath-ng", "msgspec")
COLUMNS = ("what", "rival", "ours", "rival's", "ratio", "bar", "holds")
CASE_COLUMNS = ("case", "bar", "measured")
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


class Case(msgspec.Struct, frozen=True):
    """One row of a table without rivals: what was done, its bar, what was measured; without a bar `holds` is None."""

    what: str
    bar: str
    measured: str
    holds: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Return what stands in `CASE_COLUMNS`."""
        return self.what, self.bar, f"{self.measured}{'; MISSED' if self.holds is False else ''}"


class Outcome(msgspec.Struct, frozen=True):
    """What a benchmark found: its comparisons or cases, all runs behind them, and what has to be known beside."""

    name: str
    comparisons: list[Comparison] = []
    runs: dict[str, list[Measured]] = {}
    remarks: list[str] = []
    cases: list[Case] = []

    @property
    def missed(self) -> bool:
        """Whether a bar does not hold."""
        rows: list[Comparison | Case] = [*self.comparisons, *self.cases]
        return any(row.holds is False for row in rows)


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
    tables = [_markdown(columns, rows) for columns, rows in _tables([outcome]) if rows]
    table = "\n".join(tables)
    remarks = "".join(f"- {remark}\n" for remark in outcome.remarks)
    return f"# {outcome.name}\n\n{surroundings.sentence()}\n\n{table}" + (f"\n{remarks}" if remarks else "")


def terminal(outcomes: list[Outcome], title: str) -> Group:
    """Return one table of all comparisons, and one of all cases, for a terminal."""
    shown = []
    for columns, rows in _tables(outcomes):
        table = Table(*columns, title=title)
        for cells in rows:
            table.add_row(*cells)
        shown += [table] if rows else []
    return Group(*shown)


def _tables(outcomes: list[Outcome]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Return the columns and rows of the table of comparisons and of the table of cases."""
    comparisons = [row.cells() for outcome in outcomes for row in outcome.comparisons]
    return [(COLUMNS, comparisons), (CASE_COLUMNS, [row.cells() for outcome in outcomes for row in outcome.cases])]


def _markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _number(value: float) -> str:
    """Return three significant digits, thousands marked."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
