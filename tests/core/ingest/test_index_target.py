"""What would make the index refuse every document is found before anything is written or paid for."""

from __future__ import annotations

from typing import Any

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.index_target import check_target
from opensearch_batch.core.runs.index_check import check_index
from tests.scripted import Scripted

BODY: dict[str, Any] = {"settings": {"index": {"uuid": "u"}}, "mappings": {}}


@pytest.mark.parametrize("of_prepare", [True, False])
@pytest.mark.parametrize(
    ("index", "request_", "answers", "message"),
    [
        ({"i": BODY}, {"ingest_pipeline": "add"}, [(404, {})], "no ingest pipeline 'add', through which index i is"),
        (
            {"i": {**BODY, "settings": {"index": {"uuid": "u", "default_pipeline": "own"}}}},
            {},
            [(404, {})],
            "no ingest pipeline 'own'",
        ),
        (
            {".ds-i-000001": {**BODY, "data_stream": "i"}},
            {},
            [],
            "i is a data stream, which accepts only op_type",
        ),
        ({".ds-i-000001": {**BODY, "data_stream": "i"}}, {"op_type": "create"}, [], ""),
        ({"i": BODY}, {"ingest_pipeline": "add"}, [(200, {"add": {}})], ""),
        ({"i": BODY}, {"ingest_pipeline": "add"}, [(403, {"error": {"reason": "no permissions"}})], ""),
    ],
)
def test_what_would_refuse_every_document_is_found_before(
    scripted: Scripted,
    *,
    of_prepare: bool,
    index: dict[str, Any],
    request_: dict[str, Any],
    answers: list[Any],
    message: str,
) -> None:
    """By prepare and by a request; a user who may not read ingest pipelines is not refused."""
    scripted.answers = [(200, index), *answers]
    request = IngestRequest("i", {"a": "$.a"}, **request_)

    def check() -> None:
        if of_prepare:
            check_index(scripted.cluster, request, ["a"], index_body=None, dimension=None)
        else:
            check_target(scripted.cluster, request)

    if message:
        with pytest.raises(ConfigError, match=message):
            check()
    else:
        check()
