"""Runs processes of a test in threads, one at a time: whenever one makes a step, another may go on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.core.whole_runs import Life


def interleave(life: Life, seed: int, *works: Callable[[], object]) -> None:
    """Do all works; a seed always draws the same order of their steps. The first error of a work is raised."""
    turns, idle = [threading.Semaphore(0) for _ in works], threading.Semaphore(0)
    chance, here, left = random.Random(seed), threading.local(), set(range(len(works)))  # noqa: S311 - test data

    def step() -> None:
        # Threads of a work are a part of its step.
        if hasattr(here, "number"):
            idle.release()
            turns[here.number].acquire()

    def work(number: int) -> None:
        here.number = number
        turns[number].acquire()
        try:
            works[number]()
        finally:
            left.discard(number)
            idle.release()

    life.step = step  # type: ignore[method-assign]
    try:
        with ThreadPoolExecutor(len(works)) as pool:
            done = [pool.submit(work, number) for number in range(len(works))]
            while left:
                turns[chance.choice(sorted(left))].release()
                idle.acquire()
    finally:
        del life.step
    for each in done:
        each.result()
