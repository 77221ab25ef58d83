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
    many_shards,
    memory,
    node_speed,
    page,
    parsing,
    polling,
    prepare,
    scale,
    waiting,
)
from benchmarks.report import Outcome, Surroundings, terminal, write

WIDTH = 180
# Each takes `quick`: smaller sizes, for a look.
ALL: dict[str, Callable[..., Outcome]] = {
    parsing.NAME: parsing.run,
    prepare.NAME: prepare.run,
    incremental.NAME: incremental.run,
    scale.NAME: scale.run,
    housekeeping.NAME: housekeeping.run,
    field_map.NAME: field_map.run,
    node_speed.NAME: node_speed.run,
    joins.NAME: joins.run,
    data_prepper.NAME: data_prepper.run,
    memory.NAME: memory.run,
    page.NAME: page.run,
    waiting.NAME: waiting.run,
}
# Those that choose defaults prove nothing; the many shards take longer than all others.
ON_REQUEST: dict[str, Callable[..., Outcome]] = {
    body_sizes.NAME: body_sizes.run,
    polling.NAME: polling.run,
    many_shards.NAME: many_shards.run,
}


def main() -> int:
    """Run what is named, or all; 1 when a bar does not hold at full size."""
    # A terminated benchmark still ends the node it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    known = ALL | ON_REQUEST
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="smaller sizes: no bar is judged, nothing is written")
    parser.add_argument("--large", action="store_true", help=f"{scale.NAME}: 10 M records, too")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(known)):
        parser.error(f"no benchmark {', '.join(unknown)}; choose from {', '.join(known)}")
    console = Console(width=WIDTH)
    flags = [f"--{name}" for name in ("quick", "large") if getattr(given, name)]
    command = " ".join(["python -m benchmarks", *given.names, *flags])
    outcomes = []
    for name in given.names or ALL:
        surroundings = Surroundings.here(command)
        more = {"large": True} if given.large and name == scale.NAME else {}
        outcomes.append(known[name](quick=given.quick, **more))
        if not given.quick:
            write(outcomes[-1], surroundings)
        console.print(f"{name}: {surroundings.sentence()}", *outcomes[-1].remarks, sep="\n  ", markup=False)
    console.print(terminal(outcomes, command))
    return int(any(outcome.missed for outcome in outcomes) and not given.quick)


if __name__ == "__main__":
    sys.exit(main())
