"""Rows with two vectors to bulk bytes, on one core: our field map against json, jsonpath-ng and json."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial

from benchmarks import rows
from benchmarks.by_hand import document
from benchmarks.client import Measured, alternate
from benchmarks.report import Comparison, Outcome
from opensearch_batch.core.ingest.sinks.bulk_lines import lines_of
from opensearch_batch.core.opensearch.cluster import vector_fields
from opensearch_batch.core.transform.field_map import FieldMap, Part

NAME = "field_map"
ROWS, RUNS = 400, 5
BAR = 15
OURS, CHECKED, BY_HAND = "ours", "vectors checked against the index", "json + jsonpath-ng + json"
WHAT = "rows with two 384-float vectors to bulk bytes, one core"


def run(*, quick: bool = False) -> Outcome:  # noqa: ARG001 - it takes seconds
    """Time all in turn, several times."""
    data = list(rows.rows(ROWS))
    megabytes = sum(map(len, data)) / 1e6
    subjects = {OURS: ours, CHECKED: checked, BY_HAND: by_hand}
    found = alternate({name: partial(timed, subject, data) for name, subject in subjects.items()}, runs=RUNS)
    speed = {name: megabytes / statistics.median(run.cpu_s for run in runs) for name, runs in found.items()}
    ratio = {name: value / speed[BY_HAND] for name, value in speed.items()}
    return Outcome(
        NAME,
        [
            Comparison(
                WHAT, BY_HAND, speed[OURS], speed[BY_HAND], "MB/s", ratio[OURS], f">= {BAR} x", ratio[OURS] >= BAR
            ),
            Comparison(f"{WHAT}, {CHECKED}", BY_HAND, speed[CHECKED], speed[BY_HAND], "MB/s", ratio[CHECKED]),
        ],
        found,
    )


def timed(subject: Callable[[list[bytes]], int], data: list[bytes]) -> Measured:
    """Run one of both."""
    began, cpu_began = time.perf_counter(), time.process_time()
    subject(data)
    return Measured(len(data), time.perf_counter() - began, time.process_time() - cpu_began)


def ours(data: list[bytes]) -> int:
    """Map by slices; return the bytes made."""
    return _mapped(data, FieldMap(rows.FIELD_MAP, rows.INGEST_FIELDS))


def checked(data: list[bytes]) -> int:
    """Map by slices for an index whose vector fields are known, as an ingest does."""
    vectors = vector_fields(rows.index_body()["mappings"])
    return _mapped(data, FieldMap(rows.FIELD_MAP, rows.INGEST_FIELDS, vectors=vectors))


def _mapped(data: list[bytes], field_map: FieldMap) -> int:
    size = 0
    for row in data:
        values = field_map.read(0, row)
        made = field_map.document([Part(0, values)])
        size += len(b"".join(lines_of(field_map.key(0, values) or "", *made.pieces)))
    return size


def by_hand(data: list[bytes]) -> int:
    """Map as one writes it by hand with the documented libraries; return the bytes made."""
    size = 0
    for row in data:
        made = document(row)
        head = json.dumps({"index": {"_id": str(made.pop("_id"))}})
        size += len(f"{head}\n{json.dumps(made)}\n".encode())
    return size
