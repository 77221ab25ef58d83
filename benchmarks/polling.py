"""Calls while jobs are waited for: each wait polls its own job, or one search brings the stored status of all.

A simulation, by the intervals of `PollPolicy`: `ours` polls each job at its interval. The rival is how it was before
(decision 010): one `tasks/_search` reads what ML Commons has stored of all jobs whose poll is due, or due soon; a GET
of its own has only a job whose stored status is older than its interval, or shows an end. ML Commons refreshes the
stored status of a hundred running jobs a minute, the oldest first, since 2.19. Both start at most six GETs a second.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections import deque

import msgspec

from benchmarks.report import Comparison, Outcome
from opensearch_batch.core.jobs.poll_policy import JITTER, PollPolicy

NAME = "polling"
WAITS, QUICK_WAITS = (1, 20, 200, 2_000), (1, 20)
LENGTHS_S = (600.0, 3_600.0, 6 * 3_600.0)
POLLS_PER_S = 6
SUBMISSIONS_PER_S = 1.0
REFRESH_S, REFRESHED = 60.0, 100
SOON, QUEUE = 0.25, 60
OLD = 1 - JITTER - SOON
# A few waits are simulated so often, for what chance does to them.
REPETITIONS, FEW = 10, 20


class Job(msgspec.Struct, eq=False):
    """A job: when it was submitted and ended, what ML Commons has stored of it and since when, and its next poll."""

    policy: PollPolicy
    ends_at: float
    stored_at: float
    poll_at: float
    is_end_stored: bool = False

    @classmethod
    def some(cls, count: int, length_s: float, chance: random.Random) -> list[Job]:
        """Return jobs that are submitted one after the other and take about so long."""
        found = []
        for number in range(count):
            at = number / SUBMISSIONS_PER_S
            found.append(cls(PollPolicy(at), at + length_s * chance.uniform(0.8, 1.2), at, at))
        return found

    def refresh(self, now: float) -> None:
        """Store its status of now."""
        self.stored_at, self.is_end_stored = now, self.ends_at <= now

    def pause_s(self, now: float) -> float:
        """Return the interval of its polls now."""
        return self.policy.pause_s(now=now)

    def is_over(self, now: float, chance: random.Random) -> bool:
        """Say whether a poll shows its end; else plan the next one."""
        if self.is_end_stored:
            return True
        self.poll_at = self.policy.next_poll_at(now=now, jitter=chance.random())
        return False


class Calls(msgspec.Struct):
    """What was called, and how many seconds behind each end it was seen."""

    gets: int = 0
    searches: int = 0
    late_s: list[float] = []


def each_alone(count: int, length_s: float, seed: int) -> Calls:
    """Simulate waits that each poll their own job."""
    chance, calls, free_at = random.Random(seed), Calls(), 0.0  # noqa: S311 - a simulation
    due = [(job.poll_at, number, job) for number, job in enumerate(Job.some(count, length_s, chance))]
    while due:
        at, number, job = heapq.heappop(due)
        now = max(at, free_at)
        free_at = now + 1 / POLLS_PER_S
        calls.gets += 1
        job.refresh(now)
        if job.is_over(now, chance):
            calls.late_s.append(now - job.ends_at)
        else:
            heapq.heappush(due, (job.poll_at, number, job))
    return calls


def one_search(count: int, length_s: float, seed: int, *, refreshes: bool) -> Calls:
    """Simulate waits whose stored status one search a second brings at most."""
    chance, calls, now = random.Random(seed), Calls(), 0.0  # noqa: S311 - a simulation
    jobs, asked = Job.some(count, length_s, chance), deque[Job]()
    refresh_at = chance.uniform(0, REFRESH_S) if refreshes else float("inf")
    while jobs:
        if now >= refresh_at:
            refresh_at += REFRESH_S
            running = [job for job in jobs if not job.is_end_stored and job.policy.started_at <= now]
            for job in sorted(running, key=lambda job: job.stored_at)[:REFRESHED]:
                job.refresh(now)
        free = [job for job in jobs if job.policy.started_at <= now and job not in asked]
        if any(job.poll_at <= now for job in free):
            calls.searches += 1
            _decide(free, asked, now, chance)
        for job in [asked.popleft() for _ in range(min(POLLS_PER_S, len(asked)))]:
            calls.gets += 1
            job.refresh(now)
            if job.is_over(now, chance):
                calls.late_s.append(now - job.ends_at)
                jobs.remove(job)
        now += 1.0
    return calls


def _decide(jobs: list[Job], asked: deque[Job], now: float, chance: random.Random) -> None:
    """Plan the next polls of jobs whose stored status will do; queue the others, if there is room."""
    old = []
    for job in jobs:
        if job.poll_at - SOON * job.pause_s(now) > now:
            continue
        if job.is_end_stored:
            asked.appendleft(job)
        elif now - job.stored_at >= OLD * job.pause_s(now):
            old.append(job)
        else:
            job.is_over(now, chance)
    old.sort(key=lambda job: job.stored_at)
    room = max(0, QUEUE - len(asked))
    asked.extend(old[:room])
    for job in old[room:]:
        job.poll_at = now + job.pause_s(now)


def run(*, quick: bool = False) -> Outcome:
    """Simulate waits of several numbers and lengths."""
    rows, remarks = [], []
    for length_s in LENGTHS_S[:1] if quick else LENGTHS_S:
        for count in QUICK_WAITS if quick else WAITS:
            for refreshes in (True, False):
                row, remark = _compared(count, length_s, refreshes=refreshes)
                rows.append(row)
                remarks.append(remark)
    return Outcome(NAME, rows, {}, remarks)


def _compared(count: int, length_s: float, *, refreshes: bool) -> tuple[Comparison, str]:
    seeds = range(REPETITIONS if count <= FEW else 1)
    alone = [each_alone(count, length_s, seed) for seed in seeds]
    batched = [one_search(count, length_s, seed, refreshes=refreshes) for seed in seeds]
    ours = statistics.mean(calls.gets for calls in alone)
    gets, searches = (statistics.mean(getattr(calls, kind) for calls in batched) for kind in ("gets", "searches"))
    what = f"{count:,} waits of {length_s / 60:.0f} min" + ("" if refreshes else ", ML Commons refreshes nothing")
    late = [sorted(late for calls in each for late in calls.late_s) for each in (alone, batched)]
    seen = " against ".join(f"{statistics.median(each):.0f} s in the median, {each[-1]:.0f} s at most" for each in late)
    remark = f"{what}: the rival's calls are {gets:.0f} GETs and {searches:.0f} searches; an end is seen after {seen}"
    return Comparison(what, "one search for all", ours, gets + searches, "calls", ours / (gets + searches)), remark
