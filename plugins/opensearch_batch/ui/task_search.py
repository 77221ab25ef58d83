"""One search over runs and ML Commons' tasks.

OpenSearch searches its tasks, and this process the newest `MAX_RUNS` runs; the hits of both are merged in one order.
Without an order in the request, the newest task comes first. If there are more runs, ``hits.total`` is a lower bound,
with ``"relation": "gte"``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from opensearch_batch.ui.ml_tasks import ask_ml_commons, with_progress
from opensearch_batch.ui.runs import newest_tasks
from opensearch_batch.ui.task_ids import is_run
from opensearch_batch.ui.task_query import Order, TaskQuery, parse_query

MAX_RUNS = 1000
INDEX = ".plugins-ml-task"
NEWEST_FIRST = [Order("create_time", descending=True)]
# A hit, and the values by which it is sorted.
Hit = tuple[dict[str, Any], list[Any]]


def search_tasks(body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return status and body of the answer to a search; an error of ML Commons is passed on."""
    began_at = time.monotonic()
    query = parse_query(body)
    order = query.order or NEWEST_FIRST
    status, answer = _at_ml_commons(body, query, order)
    if status != HTTPStatus.OK:
        return status, answer
    ours, is_whole = _runs(query, order)
    hits = _merged([*_theirs(answer), *ours], order)[query.first : query.first + query.size]
    total = answer["hits"]["total"]
    relation = total["relation"] if is_whole else "gte"
    return status, {
        "took": int((time.monotonic() - began_at) * 1000),
        "timed_out": answer["timed_out"],
        "_shards": answer["_shards"],
        "hits": {
            "total": {"value": total["value"] + len(ours), "relation": relation},
            "max_score": None if query.order or not hits else 0.0,
            "hits": [_shown(hit, values, query) for hit, values in hits],
        },
    }


def _at_ml_commons(body: Mapping[str, Any], query: TaskQuery, order: list[Order]) -> tuple[int, Any]:
    """Search ML Commons' tasks, as many as the window may need."""
    sort = [{each.member: {"order": "desc" if each.descending else "asc"}} for each in order]
    forwarded = {**body, "from": 0, "size": query.first + query.size, "sort": sort, "track_total_hits": True}
    status, answer = ask_ml_commons("POST", "tasks/_search", forwarded)
    if status == HTTPStatus.NOT_FOUND:
        # The index does not exist until the first task is stored.
        shards = {"total": 0, "successful": 0, "skipped": 0, "failed": 0}
        hits = {"total": {"value": 0, "relation": "eq"}, "hits": []}
        return HTTPStatus.OK, {"timed_out": False, "_shards": shards, "hits": hits}
    return status, answer


def _theirs(answer: Mapping[str, Any]) -> Iterable[Hit]:
    for hit in answer["hits"]["hits"]:
        members = {name: value for name, value in hit.items() if name not in {"sort", "_score"}}
        if "_source" in members:
            members["_source"] = with_progress(members["_source"])
        yield members, hit["sort"]


def _runs(query: TaskQuery, order: list[Order]) -> tuple[list[Hit], bool]:
    """Return the hits among the newest runs, and whether these are all runs."""
    newest = newest_tasks(MAX_RUNS + 1)
    hits = list[Hit]()
    for run_id, task in newest[:MAX_RUNS]:
        known = {**task, "_id": run_id}
        if is_run(run_id) and query.matches(known):
            source = query.source(task)
            hit = {"_index": INDEX, "_id": run_id} | ({} if source is None else {"_source": source})
            hits.append((hit, [known.get(each.member) for each in order]))
    return hits, len(newest) <= MAX_RUNS


def _merged(hits: list[Hit], order: list[Order]) -> list[Hit]:
    """Sort the hits; those without a value are last, whatever the direction."""
    for number, by in reversed(list(enumerate(order))):
        present = [hit for hit in hits if hit[1][number] is not None]
        absent = [hit for hit in hits if hit[1][number] is None]
        hits = [*sorted(present, key=lambda hit: hit[1][number], reverse=by.descending), *absent]
    return hits


def _shown(hit: dict[str, Any], values: list[Any], query: TaskQuery) -> dict[str, Any]:
    """Return a hit as OpenSearch shows it: with its score, or with the values by which the request sorts."""
    return hit | ({"_score": None, "sort": values} if query.order else {"_score": 0.0})
