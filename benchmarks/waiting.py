"""Thousands of waiting jobs on one triggerer: what it takes of the machine, whom it calls, when an end is noticed.

Real scheduler, triggerer and node; the jobs wait at the local SageMaker. A few end meanwhile, each with a task behind
it. ML Commons calls the AI service by itself too: its calls are all that SageMaker got, less the polls.

`python -m benchmarks.waiting --jobs 500 --hours 0` for another number, and jobs that were just submitted.
"""

from __future__ import annotations

import argparse
import statistics
import time

import msgspec
from rich.console import Console

from benchmarks.report import Comparison, Outcome, Surroundings, terminal
from benchmarks.waiting_field import Run, Used, started, until
from opensearch_batch.core.jobs.poll_policy import PollPolicy

NAME = "waiting"
JOBS, QUICK_JOBS, HOURS = 2_000, 50, 1.0
ENDING, BETWEEN_ENDS_S = 8, 15.0
# The first end comes when the window has begun.
WINDOW_S, QUICK_WINDOW_S, FIRST_END_S, QUICK_FIRST_END_S = 300.0, 60.0, 240.0, 90.0
SETTLE_S = 30.0
LONG_S = 6 * 3600.0


class Waits(msgspec.Struct, frozen=True):
    """One measured wait: before, at the begin and the end of the window, and for each end how late its task began."""

    jobs: int
    hours: float
    idle: Used
    begin: Used
    end: Used
    all_waiting_s: float
    late_s: list[float]

    def a_minute(self, counted: str) -> float:
        """Return how often something was called a minute."""
        return float(getattr(self.end, counted) - getattr(self.begin, counted)) * 60 / (self.end.at - self.begin.at)


def run(*, quick: bool = False, jobs: int = JOBS, hours: float = HOURS) -> Outcome:
    """Let so many jobs wait, of which some end."""
    if quick:
        found = measure(QUICK_JOBS, 0.0, window_s=QUICK_WINDOW_S, first_end_s=QUICK_FIRST_END_S)
    else:
        found = measure(jobs, hours, window_s=WINDOW_S, first_end_s=FIRST_END_S)
    return Outcome(NAME, compare(found), {}, [remark(found)])


def measure(jobs: int, hours: float, *, window_s: float, first_end_s: float) -> Waits:
    """Submit all, wait for all, look at the window, then see when the tasks behind the ends began."""
    ending, ends_s = range(jobs - ENDING, jobs), [first_end_s + BETWEEN_ENDS_S * number for number in range(ENDING)]
    with started(jobs) as field:
        api = field.start_airflow()
        idle = field.used()
        field.submit(range(jobs - ENDING), hours=hours, delays_s=[LONG_S] * (jobs - ENDING))
        field.submit(ending, hours=hours, delays_s=ends_s)
        began, run_of_all = time.monotonic(), Run(api)
        run_of_all.wait_for_waits(jobs)
        all_waiting_s = time.monotonic() - began
        time.sleep(SETTLE_S)
        begin = field.used()
        time.sleep(window_s)
        end = field.used()
        late_s = [_begun(run_of_all, number) - field.ended_at(number) for number in ending]
    return Waits(jobs, hours, idle, begin, end, all_waiting_s, late_s)


def compare(found: Waits) -> list[Comparison]:
    """Return polls a minute against those that are due, and what waits take of the triggerer."""
    due = found.jobs * 60 / PollPolicy(0.0).pause_s(now=found.hours * 3600)
    polls = found.a_minute("polls")
    cores = (found.end.cpu_s - found.begin.cpu_s) / (found.end.at - found.begin.at)
    return [
        Comparison(
            "polls: calls of OpenSearch, and of the AI service",
            "each wait at its interval (computed)",
            polls,
            due,
            "/min",
            polls / due,
            "<= 1 x",
            polls <= due,
        ),
        Comparison(
            "calls of the AI service by ML Commons itself",
            "",
            found.a_minute("service_calls") - polls,
            None,
            "/min",
        ),
        Comparison("triggerer, resident memory", "without waits", found.end.rss_mb, found.idle.rss_mb, "MiB"),
        Comparison("triggerer, cores used", "", cores, None, ""),
        Comparison("from a job's end to the next task, median", "", statistics.median(found.late_s), None, "s"),
        Comparison("the latest of them", "", max(found.late_s), None, "s"),
    ]


def remark(found: Waits) -> str:
    """Say what was run."""
    return (
        f"{found.jobs:,} jobs, submitted {found.hours:g} hours ago as far as their waits know; all waited "
        f"{found.all_waiting_s:.0f} s after the run began; counted for {found.end.at - found.begin.at:.0f} s; "
        f"{ENDING} of them ended, their next tasks began {', '.join(f'{late:.0f}' for late in found.late_s)} s later"
    )


def _begun(waits: Run, number: int) -> float:
    until(lambda: waits.began_at(number) is not None, f"the task behind job {number}")
    return waits.began_at(number) or 0.0


def main() -> None:
    """Run it with other numbers, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--hours", type=float, default=HOURS, help="how old the jobs are taken to be")
    given = parser.parse_args()
    command = f"python -m benchmarks.waiting --jobs {given.jobs} --hours {given.hours:g}"
    surroundings = Surroundings.here(command)
    outcome = run(jobs=given.jobs, hours=given.hours)
    console = Console(width=180)
    console.print(surroundings.sentence(), *outcome.remarks, sep="\n  ", markup=False)
    console.print(terminal([outcome], command))


if __name__ == "__main__":
    main()
