"""The part of OpenSearch's query language in which tasks are searched: conditions, order, window, members.

Runs are matched here, ML Commons' tasks by OpenSearch itself, so each clause means what it means there: values are
compared whole, a member that a task lacks matches nothing, the last ones in any order are those without a value. Depth
and number of clauses are bounded. What is not supported is refused, because ignoring it would find too much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any

import msgspec

from opensearch_batch.ui.responses import PARSING, ApiError

DEFAULT_SIZE, MAX_WINDOW = 10, 1000
MAX_DEPTH, MAX_CLAUSES = 10, 200
MEMBERS = frozenset({"query", "_source", "size", "from", "sort", "track_total_hits", "timeout"})
SORTED_BY = frozenset({"create_time", "last_update_time", "state", "task_type", "model_id", "function_name", "_id"})
RELATIONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}
Task = Mapping[str, Any]
Condition = Callable[[Task], bool]


class Order(msgspec.Struct, frozen=True):
    """One member by which hits are sorted."""

    member: str
    descending: bool = False


class TaskQuery(msgspec.Struct, frozen=True):
    """A parsed search: a condition on a task (with its `_id`), the window of hits, their order and members."""

    matches: Condition
    first: int
    size: int
    order: list[Order]
    source: Callable[[Task], Task | None]


def parse_query(body: Mapping[str, Any]) -> TaskQuery:
    """Parse the body of a search; raise ApiError (400) for what is invalid or not supported."""
    for name in body:
        if name not in MEMBERS:
            raise refusal(f"[{name}] is not supported in a search of tasks; it has {', '.join(sorted(MEMBERS))}")
    first, size = _number(body, "from", 0), _number(body, "size", DEFAULT_SIZE)
    if first + size > MAX_WINDOW:
        raise refusal(f"Result window is too large, from + size must be less than or equal to: [{MAX_WINDOW}]")
    matches = _Parser().condition(body["query"]) if "query" in body else lambda _: True
    return TaskQuery(matches, first, size, _order(body.get("sort")), _source(body.get("_source")))


def refusal(reason: str) -> ApiError:
    """Return the error for a query that cannot be run."""
    return ApiError(HTTPStatus.BAD_REQUEST, reason, kind=PARSING)


def _number(body: Mapping[str, Any], name: str, default: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise refusal(f"[{name}] must be a number that is not negative")
    return value


class _Parser:
    """Parses clauses, and counts them."""

    def __init__(self) -> None:
        self._clauses = 0

    def condition(self, clause: object, depth: int = 1) -> Condition:
        """Return the condition of a clause, an object with one member."""
        self._clauses += 1
        if depth > MAX_DEPTH or self._clauses > MAX_CLAUSES:
            raise refusal(f"[query] has more than {MAX_DEPTH} levels or {MAX_CLAUSES} clauses")
        kind, value = _single(clause, "query")
        if kind == "bool":
            return self._bool(value, depth)
        if kind == "match_all":
            return lambda _: True
        if kind in {"term", "match", "match_phrase"}:
            return _term(kind, value)
        parsers = {"terms": _terms, "exists": _exists, "range": _range, "ids": _ids}
        if kind not in parsers:
            known = ", ".join(["bool", "match", "match_all", "match_phrase", "term", *parsers])
            raise refusal(f"unknown query [{kind}]; tasks are searched with {known}")
        return parsers[kind](value)

    def _bool(self, value: object, depth: int) -> Condition:
        if not isinstance(value, dict):
            raise refusal("[bool] must be an object")
        unknown = value.keys() - {"must", "filter", "should", "must_not", "minimum_should_match", "boost"}
        if unknown:
            raise refusal(f"[bool] query does not support [{min(unknown)}]")

        def clauses(name: str) -> list[Condition]:
            given = value.get(name, [])
            return [self.condition(each, depth + 1) for each in (given if isinstance(given, list) else [given])]

        needed = [*clauses("must"), *clauses("filter")]
        excluded, optional = clauses("must_not"), clauses("should")
        least = value.get("minimum_should_match", 1 if optional and not needed else 0)
        if not isinstance(least, int) or isinstance(least, bool) or least < 0:
            raise refusal("[minimum_should_match] must be a number that is not negative")

        def matches(task: Task) -> bool:
            if not all(each(task) for each in needed) or any(each(task) for each in excluded):
                return False
            return least == 0 or sum(each(task) for each in optional) >= least

        return matches


def _single(clause: object, name: str) -> tuple[str, Any]:
    """Return the only member of an object."""
    if not isinstance(clause, dict) or len(clause) != 1:
        raise refusal(f"[{name}] must be an object with one member")
    return next(iter(clause.items()))


def _term(kind: str, value: object) -> Condition:
    member, wanted = _single(value, kind)
    if isinstance(wanted, dict):
        inner = "value" if kind == "term" else "query"
        if wanted.keys() - {inner, "boost"} or inner not in wanted:
            raise refusal(f"[{kind}] query on [{member}] supports only [{inner}]")
        wanted = wanted[inner]
    _refuse_non_scalar(wanted, kind, member)
    return lambda task: _equals(task.get(member), wanted)


def _terms(value: object) -> Condition:
    named = {name: each for name, each in value.items() if name != "boost"} if isinstance(value, dict) else value
    member, wanted = _single(named, "terms")
    if not isinstance(wanted, list):
        raise refusal(f"[terms] query on [{member}] must have a list of values")
    for each in wanted:
        _refuse_non_scalar(each, "terms", member)
    return lambda task: any(_equals(task.get(member), each) for each in wanted)


def _ids(value: object) -> Condition:
    _, wanted = _single(value, "ids")
    return _terms({"_id": wanted})


def _exists(value: object) -> Condition:
    name, member = _single(value, "exists")
    if name != "field" or not isinstance(member, str):
        raise refusal('[exists] must be {"field": …}')
    return lambda task: task.get(member) is not None


def _range(value: object) -> Condition:
    member, bounds = _single(value, "range")
    if not isinstance(bounds, dict) or not bounds or bounds.keys() - RELATIONS.keys():
        raise refusal(f"[range] query on [{member}] must have some of {', '.join(RELATIONS)}")
    for bound in bounds.values():
        if not isinstance(bound, int | float) or isinstance(bound, bool):
            raise refusal(f"[range] query on [{member}] compares numbers, such as epoch milliseconds")

    def matches(task: Task) -> bool:
        actual = task.get(member)
        return isinstance(actual, int) and all(RELATIONS[name](actual, bound) for name, bound in bounds.items())

    return matches


def _refuse_non_scalar(value: object, kind: str, member: str) -> None:
    if value is None or isinstance(value, dict | list):
        raise refusal(f"[{kind}] query on [{member}] must have a string, a number or a boolean")


def _equals(actual: object, wanted: object) -> bool:
    """Compare as OpenSearch does: as texts, booleans in lower case."""
    return actual is not None and _text(actual) == _text(wanted)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _order(value: object) -> list[Order]:
    if value is None:
        return []
    return [_order_by(each) for each in (value if isinstance(value, list) else [value])]


def _order_by(value: object) -> Order:
    member, how = (value, "asc") if isinstance(value, str) else _single(value, "sort")
    if isinstance(how, dict) and not how.keys() - {"order", "unmapped_type"}:
        how = how.get("order", "asc")
    if member not in SORTED_BY or how not in ("asc", "desc"):
        raise refusal(f"[sort] must name some of {', '.join(sorted(SORTED_BY))}, each with asc or desc")
    return Order(str(member), how == "desc")


def _source(value: object) -> Callable[[Task], Task | None]:
    """Return the function that selects the members of a hit."""
    if value is None or value is True:
        return lambda task: task
    if value is False:
        return lambda _: None
    includes: Any = value
    excludes: Any = []
    if isinstance(value, dict) and not value.keys() - {"includes", "excludes", "include", "exclude"}:
        includes = value.get("includes", value.get("include", []))
        excludes = value.get("excludes", value.get("exclude", []))
    wanted, unwanted = _patterns(includes), _patterns(excludes)

    def selected(task: Task) -> Task:
        return _select(task, wanted, unwanted)

    return selected


def _patterns(value: object) -> Sequence[str]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list) or not all(isinstance(each, str) for each in patterns):
        raise refusal("[_source] must be a boolean, a pattern, a list of patterns, or includes and excludes")
    return patterns


def _select(task: Task, includes: Sequence[str], excludes: Sequence[str], prefix: str = "") -> dict[str, Any]:
    """Return the members whose dotted names match; a pattern of an object matches all that it has."""
    selected: dict[str, Any] = {}
    for name, value in task.items():
        path = f"{prefix}{name}"
        if any(fnmatchcase(path, pattern) for pattern in excludes):
            continue
        is_included = not includes or any(fnmatchcase(path, pattern) for pattern in includes)
        if not isinstance(value, dict):
            selected |= {name: value} if is_included else {}
        elif inner := _select(value, [] if is_included else includes, excludes, f"{path}."):
            selected[name] = inner
    return selected
