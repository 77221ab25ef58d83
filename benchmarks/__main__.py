"""Runs the benchmarks, prints one table, and keeps what each found in `benchmarks/results`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from rich.console import Console

from benchmarks import (
    body_sizes,
    data_prepper,
    field_map,
    housekeeping,
    incremental,
    joins,
    memory,
    node_speed,
    page,
    parsing,
    polling,
    prepare,
    waiting,
)
from benchmarks.report import Outcome, Surroundings, terminal, write

WIDTH = 180
# Each takes `quick`: smaller sizes, for a look.
ALL: dict[str, Callable[..., Outcome]] = {
    parsing.NAME: parsing.run,
    prepare.NAME: prepare.run,
    incremental.NAME: incremental.run,
    housekeeping.NAME: housekeeping.run,
    field_map.NAME: field_map.run,
    node_speed.NAME: node_speed.run,
    joins.NAME: joins.run,
    data_prepper.NAME: data_prepper.run,
    memory.NAME: memory.run,
    page.NAME: page.run,
    waiting.NAME: waiting.run,
}
# Looked at when defaults are chosen; it proves nothing.
ON_REQUEST: dict[str, Callable[..., Outcome]] = {body_sizes.NAME: body_sizes.run, polling.NAME: polling.run}


def main() -> int:
    """Run what is named, or all; 1 when a bar does not hold at full size."""
    # A terminated benchmark still ends the node it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    known = ALL | ON_REQUEST
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="smaller sizes: no bar is judged, nothing is written")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(known)):
        parser.error(f"no benchmark {', '.join(unknown)}; choose from {', '.join(known)}")
    console = Console(width=WIDTH)
    command = " ".join(["python -m benchmarks", *given.names, *(["--quick"] if given.quick else [])])
    outcomes = []
    for name in given.names or ALL:
        surroundings = Surroundings.here(command)
        outcomes.append(known[name](quick=given.quick))
        if not given.quick:
            write(outcomes[-1], surroundings)
        console.print(f"{name}: {surroundings.sentence()}", *outcomes[-1].remarks, sep="\n  ", markup=False)
    console.print(terminal(outcomes, command))
    return int(any(outcome.missed for outcome in outcomes) and not given.quick)


if __name__ == "__main__":
    sys.exit(main())
