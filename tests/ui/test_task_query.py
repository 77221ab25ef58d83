"""The queries that a search of tasks understands: each means what it means in OpenSearch."""

from __future__ import annotations

from typing import Any

import pytest

from opensearch_batch.ui.responses import ApiError
from opensearch_batch.ui.task_query import Order, parse_query

TASK = {"_id": "t.1", "task_type": "BATCH_INGEST", "state": "RUNNING", "create_time": 1000, "is_async": True}


def matches(query: Any) -> bool:
    """Say whether the query finds the task."""
    return parse_query({"query": query}).matches(TASK)


def of_bool(**clauses: Any) -> dict[str, Any]:
    """Make a bool query."""
    return {"bool": clauses}


RUNNING, FAILED = {"term": {"state": "RUNNING"}}, {"term": {"state": "FAILED"}}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"match_all": {}}, True),
        (RUNNING, True),
        (FAILED, False),
        ({"term": {"state": "RUN"}}, False),
        ({"term": {"state": {"value": "RUNNING", "boost": 2}}}, True),
        ({"term": {"model_id": "any"}}, False),
        ({"term": {"create_time": "1000"}}, True),
        ({"term": {"is_async": "true"}}, True),
        ({"term": {"is_async": False}}, False),
        ({"term": {"_id": "t.1"}}, True),
        ({"match": {"state": "RUNNING"}}, True),
        ({"match": {"state": {"query": "RUNNING"}}}, True),
        ({"match_phrase": {"task_type": "BATCH_INGEST"}}, True),
        ({"terms": {"state": ["CREATED", "RUNNING"]}}, True),
        ({"terms": {"state": ["CREATED"], "boost": 1}}, False),
        ({"terms": {"state": []}}, False),
        ({"ids": {"values": ["other", "t.1"]}}, True),
        ({"exists": {"field": "state"}}, True),
        ({"exists": {"field": "error"}}, False),
        ({"range": {"create_time": {"gte": 1000, "lt": 1001}}}, True),
        ({"range": {"create_time": {"gt": 1000}}}, False),
        ({"range": {"create_time": {"lte": 999.5}}}, False),
        ({"range": {"state": {"gt": 1}}}, False),
        (of_bool(), True),
        (of_bool(filter=RUNNING), True),
        (of_bool(filter=[RUNNING, FAILED]), False),
        (of_bool(must=[RUNNING], must_not=[FAILED]), True),
        (of_bool(must_not=RUNNING), False),
        (of_bool(should=[RUNNING, FAILED]), True),
        (of_bool(should=[FAILED]), False),
        (of_bool(filter=[RUNNING], should=[FAILED]), True),
        (of_bool(filter=[RUNNING], should=[FAILED], minimum_should_match=1), False),
        (of_bool(should=[RUNNING, FAILED], minimum_should_match=2), False),
        (of_bool(filter=[of_bool(should=[of_bool(must=[RUNNING])])]), True),
    ],
)
def test_a_query_matches_as_in_opensearch(query: Any, expected: Any) -> None:
    """Values are compared whole, and an absent member matches nothing."""
    assert matches(query) is expected


def deep(levels: int) -> dict[str, Any]:
    """Nest bool queries."""
    return RUNNING if levels == 1 else of_bool(filter=[deep(levels - 1)])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"aggs": {}}, r"\[aggs\] is not supported"),
        ({"query": {"wildcard": {"state": "R*"}}}, r"unknown query \[wildcard\]"),
        ({"query": {}}, r"\[query\] must be an object with one member"),
        ({"query": None}, r"\[query\] must be"),
        ({"query": [RUNNING]}, r"\[query\] must be"),
        ({"query": {"bool": []}}, r"\[bool\] must be an object"),
        ({"query": {"bool": {"filters": []}}}, r"\[bool\] query does not support \[filters\]"),
        ({"query": {"bool": {"filter": ["x"]}}}, r"\[query\] must be"),
        ({"query": {"bool": {"should": RUNNING, "minimum_should_match": "75%"}}}, "minimum_should_match"),
        ({"query": {"term": {"state": None}}}, r"\[term\] query on \[state\] must have a string"),
        ({"query": {"term": {"state": ["RUNNING"]}}}, "must have a string"),
        ({"query": {"term": {"state": {"value": "x", "rewrite": "y"}}}}, r"supports only \[value\]"),
        ({"query": {"term": {"state": "a", "task_type": "b"}}}, r"\[term\] must be an object with one member"),
        ({"query": {"terms": {"state": "RUNNING"}}}, "must have a list"),
        ({"query": {"terms": {"state": [{}]}}}, "must have a string"),
        ({"query": {"terms": []}}, r"\[terms\] must be"),
        ({"query": {"exists": {"name": "state"}}}, r"\[exists\] must be"),
        ({"query": {"range": {"create_time": {"gte": "now-1d"}}}}, "compares numbers"),
        ({"query": {"range": {"create_time": {"from": 1}}}}, r"\[range\] query on \[create_time\]"),
        ({"query": {"range": {"create_time": 1}}}, r"\[range\] query on \[create_time\]"),
        ({"query": deep(11)}, "more than 10 levels"),
        ({"query": of_bool(filter=[RUNNING] * 200)}, "200 clauses"),
        ({"size": -1}, r"\[size\] must be a number"),
        ({"size": True}, r"\[size\] must be a number"),
        ({"from": "0"}, r"\[from\] must be a number"),
        ({"size": 1001}, "Result window is too large"),
        ({"from": 991}, "Result window is too large"),
        ({"sort": "remote_job"}, r"\[sort\] must name some of"),
        ({"sort": {"state": "up"}}, r"\[sort\] must name"),
        ({"sort": [{"state": {"mode": "min"}}]}, r"\[sort\] must name"),
        ({"sort": [{"state": "asc", "create_time": "asc"}]}, r"\[sort\] must be"),
        ({"sort": [[]]}, r"\[sort\] must be"),
        ({"sort": [{"state": {"order": []}}]}, r"\[sort\] must name"),
        ({"_source": 1}, r"\[_source\] must be"),
        ({"_source": [1]}, r"\[_source\] must be"),
        ({"_source": {"only": []}}, r"\[_source\] must be"),
    ],
)
def test_what_is_not_understood_is_refused(body: dict[str, Any], reason: str) -> None:
    """To ignore it would find too much."""
    with pytest.raises(ApiError, match=reason) as error:
        parse_query(body)
    assert (error.value.status, error.value.kind) == (400, "parsing_exception")


def test_the_defaults_are_those_of_opensearch() -> None:
    """Ten hits, all members, no order."""
    query = parse_query({})
    assert (query.first, query.size, query.order, query.source(TASK)) == (0, 10, [], TASK)
    assert query.matches(TASK)
    assert matches(deep(10))


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("state", [Order("state")]),
        ({"create_time": "desc"}, [Order("create_time", descending=True)]),
        ([{"state": {"order": "desc"}}, "_id"], [Order("state", descending=True), Order("_id")]),
    ],
)
def test_an_order_has_any_form_of_opensearch(sort: Any, order: list[Order]) -> None:
    """A name, an object, or a list of these."""
    assert parse_query({"sort": sort}).order == order


@pytest.mark.parametrize(
    ("source", "members"),
    [
        (True, {"state", "progress", "remote_job"}),
        ("state", {"state"}),
        (["st*", "progress"], {"state", "progress"}),
        ({"excludes": ["progress.*", "remote_job"]}, {"state"}),
        ({"includes": ["progress.read"]}, {"progress"}),
        ({"include": "s*", "exclude": "state"}, set()),
    ],
)
def test_members_are_selected_by_patterns(source: Any, members: set[str]) -> None:
    """Also those of objects within."""
    task = {"state": "RUNNING", "progress": {"read": 1, "indexed": 2}, "remote_job": {"id": "b"}}
    found = parse_query({"_source": source}).source(task)
    assert set(found or {}) == members
    if source == {"includes": ["progress.read"]}:
        assert found == {"progress": {"read": 1}}


def test_no_members_can_be_asked_for() -> None:
    """A hit then has no `_source`."""
    assert parse_query({"_source": False}).source(TASK) is None
