"""Rows with two vectors to bulk bytes, on one core: our field map against json, jsonpath-ng and json."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec
from jsonpath_ng.parser import parse

from opensearch_batch.core.bulk import Item, action
from opensearch_batch.core.field_map import FieldMap

ROWS, DIMENSION, RUNS = 400, 384, 5
MAP = {
    "_id": "$.id",
    "chapter": "$.content[0]",
    "title": "$.content[1]",
    "chapter_embedding": "$.SageMakerOutput[0]",
    "title_embedding": "$.SageMakerOutput[1]",
}


class Result(msgspec.Struct, frozen=True):
    """Medians of megabytes a second, and their ratio."""

    name: str
    ours: float
    rival: float
    unit: str

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.ours / self.rival


def rows(count: int = ROWS) -> list[bytes]:
    """Make rows of two texts and two vectors, the same ones each time."""
    source = random.Random(7)  # noqa: S311 - test data
    return [
        json.dumps(
            {
                "SageMakerOutput": [[source.gauss(0, 0.05) for _ in range(DIMENSION)] for _ in range(2)],
                "content": ["a chapter of some words " * 10, "a title"],
                "id": number,
            }
        ).encode()
        for number in range(count)
    ]


def ours(data: list[bytes]) -> int:
    """Map by slices; return the bytes made."""
    field_map = FieldMap(MAP)
    size = 0
    for row in data:
        document = field_map.document(row)
        size += len(action(Item(document.id or "", document.source)))
    return size


def by_hand(data: list[bytes]) -> int:
    """Map as one writes it by hand with the documented libraries; return the bytes made."""
    paths: dict[str, Any] = {name: parse(path) for name, path in MAP.items()}
    size = 0
    for row in data:
        value = json.loads(row)
        document = {name: path.find(value)[0].value for name, path in paths.items()}
        head = json.dumps({"index": {"_id": str(document.pop("_id"))}})
        size += len(f"{head}\n{json.dumps(document)}\n".encode())
    return size


def run() -> Result:
    """Time both in turn, several times."""
    data = rows()
    megabytes = sum(map(len, data)) / 1e6
    seconds: dict[Callable[[list[bytes]], int], list[float]] = {ours: [], by_hand: []}
    for _ in range(RUNS):
        for subject, times in seconds.items():
            started = time.process_time()
            subject(data)
            times.append(time.process_time() - started)
    speed = {subject: megabytes / statistics.median(times) for subject, times in seconds.items()}
    return Result("rows with two 384-float vectors to bulk bytes, one core", speed[ours], speed[by_hand], "MB/s")
