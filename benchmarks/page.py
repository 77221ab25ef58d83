"""Pages and API of an api-server with a long history: time to answer, memory, and a flood of requests.

The whole local stack runs on this machine. The api-server is Airflow's own, with one process; it is started once
without the plugin, for the comparison of memory. `benchmarks.page_history` has what is stored.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from urllib.parse import quote

from benchmarks.page_history import ENDED, PIPELINE, QUICK, REQUESTS, RUNNING, WHOLE, Sizes, name_of, request_named
from benchmarks.page_load import API, Flood, Reads, Request, read, send_flood
from benchmarks.page_site import Site, started
from benchmarks.report import Case, Outcome

NAME = "page"
PREFIX = "/opensearch-batch"
READS, QUICK_READS = 40, 5
P95_MS, ADDED_MB, ACCEPTED_PER_S = 300.0, 50.0, 5
SECONDS, QUICK_SECONDS, PER_SECOND = 30, 5, 20
SHOWN_SHARDS = 50
REASON = "400 mapper_parsing_exception: failed to parse field [year] of type [integer]"
# Airflow's own API, so that the api-server has loaded what it loads in use.
BASE = ("dags?limit=50", f"dags/{PIPELINE}/dagRuns?limit=100", f"dags/{PIPELINE}/dagRuns/{ENDED}/taskInstances")
Pick = Callable[[random.Random], Request]


def run(*, quick: bool = False) -> Outcome:
    """Measure it all."""
    sizes, times = (QUICK, QUICK_READS) if quick else (Sizes(), READS)
    with started(sizes) as site:
        site.start_api_server(plugin=False)
        _base(site, times)
        without = site.memory_mb()
        site.start_api_server(plugin=True)
        _base(site, times)
        at_start = site.memory_mb()
        found = dict(_reads(site, sizes, times))
        after = site.memory_mb()
        flood = send_flood(site, seconds=QUICK_SECONDS if quick else SECONDS, per_second=PER_SECOND)
    cases = [_case(name, reads) for name, reads in found.items()]
    cases += [
        Case("api-server without the plugin, memory", "", f"{without:.0f} MiB"),
        Case("the plugin adds, at start", "", f"{at_start - without:.1f} MiB"),
        Case(
            "the plugin adds, after all reads above",
            f"< {ADDED_MB:.0f} MiB",
            f"{after - without:.1f} MiB",
            after - without < ADDED_MB,
        ),
        *_of_flood(flood),
    ]
    remark = (
        f"{sizes.runs:,} runs of a pipeline and {sizes.runs:,} of requests; two runs of {sizes.shards:,} shards with "
        f"{sizes.letters:,} dead letters each; {times} requests each, one after the other"
    )
    return Outcome(NAME, cases=cases, remarks=[remark])


def _base(site: Site, times: int) -> None:
    api = site.api()
    for _ in range(times):
        for path in BASE:
            api.call("GET", path)


def _reads(site: Site, sizes: Sizes, times: int) -> Iterator[tuple[str, Reads]]:
    """Read each page with a token, as a script has it, and each read of the API with a password."""
    chance = random.Random(7)  # noqa: S311 - which of many runs is read
    pages = site.session({"Authorization": f"Bearer {site.token()}"})
    clients = site.session(login=site.login)
    for name, pick in _pages(sizes).items():
        yield name, read(pages, f"{site.url}{PREFIX}", _picks(pick, chance), times)
    for name, pick in _api_reads(site, sizes).items():
        yield name, read(clients, f"{site.url}{API}", _picks(pick, chance), times)


def _picks(pick: Pick, chance: random.Random) -> Iterator[Request]:
    while True:
        yield pick(chance)


def _pages(sizes: Sizes) -> dict[str, Pick]:
    """Return the pages by name."""
    root, requests_root = f"/pipelines/{PIPELINE}", f"/pipelines/{REQUESTS}"
    large, running = f"{root}/runs/{ENDED}", f"{root}/runs/{RUNNING}"

    def recent(chance: random.Random) -> int:
        return chance.randrange(max(sizes.runs - WHOLE, 0), sizes.runs)

    def first(chance: random.Random) -> int:
        return chance.randrange(0, sizes.shards, SHOWN_SHARDS)

    return {
        "page: pipelines": lambda _: _get("/"),
        "page: a pipeline": lambda _: _get(root),
        "page: a pipeline, older runs": lambda chance: _get(f"{root}?before={chance.randrange(100, 2 * sizes.runs)}"),
        "page: a run": lambda chance: _get(f"{root}/runs/{name_of(recent(chance))}"),
        "page: a run of many shards": lambda chance: _get(f"{large}?first={first(chance)}"),
        "page: a run of many shards, in progress": lambda chance: _get(f"{running}?first={first(chance)}"),
        "page: the same, shards of one state": lambda _: _get(f"{running}?state=predicting"),
        "page: dead letters by reason": lambda _: _get(f"{large}/dead-letters"),
        "page: samples of a reason": lambda _: _get(f"{large}/dead-letters?reason={quote(REASON)}"),
        "page: samples of a reason, run in progress": lambda _: _get(f"{running}/dead-letters?reason={quote(REASON)}"),
        "page: jobs of a pipeline": lambda _: _get(f"{root}/jobs"),
        "page: jobs of all pipelines": lambda _: _get("/jobs"),
        "page: requests": lambda _: _get(requests_root),
        "page: a request": lambda chance: _get(f"{requests_root}/runs/{request_named(recent(chance))}"),
        "page: search, form": lambda _: _get(f"{root}/search"),
        "page: search, a question": lambda chance: Request(
            "POST", f"{root}/search", form={"question": f"an animal that lives in sea {chance.randrange(10_000)}"}
        ),
    }


def _api_reads(site: Site, sizes: Sizes) -> dict[str, Pick]:
    """Return the reads of the API by name."""
    models = {"query": {"term": {"task_type": "BATCH_PREDICTION"}}, "size": 1}
    found = site.session(login=site.login).get(f"{site.url}{API}/tasks/_search", json=models, timeout=30).json()
    ml_task = found["hits"]["hits"][0]["_id"]
    ended = {
        "query": {"bool": {"filter": [{"term": {"task_type": "BATCH_INGEST"}}, {"term": {"state": "COMPLETED"}}]}},
        "size": 100,
        "sort": [{"create_time": "desc"}],
        "_source": ["state", "progress"],
    }
    return {
        "API: GET tasks/{id}, a run": lambda chance: _get(f"/tasks/{request_named(chance.randrange(sizes.runs))}"),
        "API: GET tasks/{id}, a task of ML Commons": lambda _: _get(f"/tasks/{ml_task}"),
        "API: tasks/_search": lambda _: _get("/tasks/_search"),
        "API: tasks/_search, 100 ended runs": lambda _: Request("POST", "/tasks/_search", body=ended),
        "API: _openapi.json": lambda _: _get("/_openapi.json"),
    }


def _get(path: str) -> Request:
    return Request("GET", path)


def _case(name: str, reads: Reads) -> Case:
    p95 = reads.percentile_ms(95)
    measured = (
        f"p50 {reads.percentile_ms(50):.0f} ms, p95 {p95:.0f} ms, first {reads.times_ms[0]:.0f} ms, "
        f"{reads.size_bytes / 1000:.0f} kB"
    )
    return Case(name, f"p95 < {P95_MS:.0f} ms", measured, p95 < P95_MS)


def _of_flood(flood: Flood) -> list[Case]:
    """Return what became of the requests, in exact counts."""
    least = flood.sent * ACCEPTED_PER_S // PER_SECOND
    completed = flood.states.get("COMPLETED", 0)
    states = ", ".join(f"{count} {state}" for state, count in sorted(flood.states.items())) or "none"
    others = ", ".join(f"{count} with {status}" for status, count in sorted(flood.others.items())) or "0"
    return [
        Case("flood: sent", "", f"{flood.sent} in {flood.seconds:.1f} s"),
        Case("flood: accepted", f">= {ACCEPTED_PER_S} a second", f"{flood.accepted}", flood.accepted >= least),
        Case(
            "flood: ends of those accepted",
            "all COMPLETED",
            f"{states}; the last {flood.ended_s:.0f} s after the first was sent",
            completed == flood.accepted,
        ),
        Case(
            "flood: refused with 429",
            "all with Retry-After",
            f"{flood.throttled}, {flood.without_retry_after} of them without Retry-After",
            flood.without_retry_after == 0,
        ),
        Case("flood: any other answer", "0", others, not flood.others),
    ]
