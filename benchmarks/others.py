"""A ratio is worth what the machine's quiet is worth: how many cores others used during a run stands beside it."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.client import Measured

STAT = Path("/proc/stat")
# proc(5): user, nice, system, irq, softirq and steal of the first line; idle and iowait are not work.
_WORK = (1, 2, 3, 6, 7, 8)
# Others that use less than this share of a core do not count; a run beside more is repeated.
QUIET_CORES = 0.25
LOOK_S, GIVE_UP_S, TRIES = 1.0, 60.0, 3


def machine_s() -> float:
    """Return the processor seconds that all processes have used since the start; 0 where the system does not say."""
    if not STAT.exists():
        return 0.0
    fields = STAT.read_text().split("\n", 1)[0].split()
    return sum(int(fields[at]) for at in _WORK) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """Return the processor seconds of this process and of the clients it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Others:
    """What runs on this machine and has no part in the benchmark.

    Args:
        node_s: returns the processor seconds of the node that is measured.
    """

    def __init__(self, node_s: Callable[[], float]) -> None:
        self._node_s = node_s

    def wait_for_quiet(self) -> None:
        """Return when others are quiet, or after a while all the same: each run says how quiet it was."""
        give_up_at = time.monotonic() + GIVE_UP_S
        while self._cores_during(lambda: time.sleep(LOOK_S)) > QUIET_CORES and time.monotonic() < give_up_at:
            pass

    def least_disturbed(self, once: Callable[[], Measured], *, before: Callable[[], None]) -> Measured:
        """Run once, and again while others disturb it; whether it counts depends on them alone, never on its speed.

        `before` makes ready for each run and is not measured.
        """
        runs: list[Measured] = []
        while len(runs) < TRIES and all(run.others_cores > QUIET_CORES for run in runs):
            before()
            self.wait_for_quiet()
            runs.append(self._beside_others(once))
        return min(runs, key=lambda run: run.others_cores)

    def _beside_others(self, once: Callable[[], Measured]) -> Measured:
        measured: list[Measured] = []
        cores = self._cores_during(lambda: measured.append(once()))
        return msgspec.structs.replace(measured[0], others_cores=round(cores, 2))

    def _cores_during(self, work: Callable[[], None]) -> float:
        began, before = time.perf_counter(), self._used_s()
        work()
        return max(0.0, self._used_s() - before) / (time.perf_counter() - began)

    def _used_s(self) -> float:
        return machine_s() - self._node_s() - own_s() if STAT.exists() else 0.0


def in_turn(found: Mapping[str, Sequence[Measured]]) -> str:
    """Say how many runs medians were taken of, and how quiet the machine was."""
    runs = [run for each in found.values() for run in each]
    most = max(run.others_cores for run in runs)
    disturbed = sum(run.others_cores > QUIET_CORES for run in runs)
    return (
        f"medians of {len(runs) // len(found)} runs in turn after one that does not count; {disturbed} of {len(runs)} "
        f"runs were disturbed (others used more than {QUIET_CORES} cores), at most {most:.1f} cores"
    )
