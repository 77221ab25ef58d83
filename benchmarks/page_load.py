"""Reads of pages and of the API one after the other, and a flood of `_batch_ingestion` requests."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import msgspec
import requests

from benchmarks.page_site import TIMEOUT_S, Site

API = "/_plugins/_ml"
SENDERS = 64
END_WAIT_S, LOOK_EVERY_S = 1_800.0, 2.0
ENDED = {"COMPLETED", "COMPLETED_WITH_ERROR", "FAILED", "CANCELLED"}
ROWS = [{"id": number, "text": f"row {number}"} for number in range(3)]


class Request(msgspec.Struct, frozen=True):
    """A request for a page or of the API, with its form or its body."""

    method: str
    path: str
    form: dict[str, str] | None = None
    body: Any = None


class Reads(msgspec.Struct, frozen=True):
    """Milliseconds of equal or similar requests, in their order; the first one finds nothing remembered."""

    times_ms: list[float]
    size_bytes: int

    def percentile_ms(self, percent: int) -> float:
        """Return the smallest time within which so many percent were answered."""
        ordered = sorted(self.times_ms)
        return ordered[max(-(-len(ordered) * percent // 100) - 1, 0)]


def read(session: requests.Session, url: str, wanted: Iterator[Request], times: int) -> Reads:
    """Send requests one after the other; each must be answered with 200."""
    times_ms, size = [], 0
    for _ in range(times):
        each = next(wanted)
        began = time.perf_counter()
        answer = session.request(
            each.method, f"{url}{each.path}", data=each.form, json=each.body, timeout=TIMEOUT_S, allow_redirects=False
        )
        times_ms.append((time.perf_counter() - began) * 1000)
        if answer.status_code != HTTPStatus.OK:
            raise RuntimeError(f"{each.method} {each.path}: {answer.status_code} {answer.text[:500]}")
        size = max(size, len(answer.content))
    return Reads(times_ms, size)


class Flood(msgspec.Struct, frozen=True):
    """What became of a flood: `accepted` requests by the state of their task, and the others by status.

    `without_retry_after` counts the refusals with 429 that do not tell when to try again. The last accepted request had
    ended `ended_s` after the first was sent.
    """

    sent: int
    seconds: float
    accepted: int
    states: dict[str, int]
    throttled: int
    without_retry_after: int
    others: dict[int, int]
    ended_s: float


def send_flood(site: Site, *, seconds: int, per_second: int) -> Flood:
    """Send so many requests a second, then wait for the end of those that were accepted."""
    bucket = site.lab.new_bucket()
    source = f"s3://{bucket}/rows.jsonl"
    site.lab.objects.write(source, b"".join(json.dumps(row).encode() + b"\n" for row in ROWS))
    session = site.session(login=site.login)
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=SENDERS))
    began = time.monotonic()

    def send(number: int) -> requests.Response:
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        body = {
            "index_name": "flood",
            "field_map": {"_id": "$.id", "text": "$.text"},
            "data_source": {"type": "s3", "source": [source]},
            # Each has its own progress, so that none takes over from another.
            "work_prefix": f"s3://{bucket}/work/{number}",
        }
        return session.post(f"{site.url}{API}/_batch_ingestion", json=body, timeout=TIMEOUT_S)

    with ThreadPoolExecutor(SENDERS) as senders:
        answers = list(senders.map(send, range(seconds * per_second)))
    took_s = time.monotonic() - began
    accepted = [str(answer.json()["task_id"]) for answer in answers if answer.ok]
    throttled = [answer for answer in answers if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS]
    statuses = Counter(answer.status_code for answer in answers)
    for status in (HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS):
        statuses.pop(status, None)
    states = _ends(site, session, accepted)
    return Flood(
        sent=len(answers),
        seconds=took_s,
        accepted=len(accepted),
        states=states,
        throttled=len(throttled),
        without_retry_after=sum("Retry-After" not in answer.headers for answer in throttled),
        others=dict(statuses),
        ended_s=time.monotonic() - began,
    )


def _ends(site: Site, session: requests.Session, task_ids: list[str]) -> dict[str, int]:
    """Wait for the end of tasks; return how many ended in which state."""
    states, left, give_up_at = Counter[str](), task_ids, time.monotonic() + END_WAIT_S
    while left and time.monotonic() < give_up_at:
        found = {
            task_id: session.get(f"{site.url}{API}/tasks/{task_id}", timeout=TIMEOUT_S).json().get("state", "")
            for task_id in left[:SENDERS]
        }
        states.update(state for state in found.values() if state in ENDED)
        left = [task_id for task_id in left if found.get(task_id, "") not in ENDED]
        time.sleep(LOOK_EVERY_S)
    states.update(["not ended"] * len(left))
    return dict(states)
