"""What ledger and prediction store take, in few requests."""

from __future__ import annotations

import pytest

from opensearch_batch.core.runs import ledger_storage as module
from opensearch_batch.core.runs.ledger_storage import LedgerStorage, ledger_storage
from opensearch_batch.core.storage.cached_reads import CachedReader
from tests.core.counted_objects import CountedObjects
from tests.core.whole_runs import Pipeline


def test_the_storage_of_a_pipeline_is_that_of_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes of heads and rows by listing, of answers by the head of the store; counted once a minute, up to a bound."""
    pipeline = Pipeline()
    for name in "ab":
        pipeline.put(f"{name}.jsonl", *({"id": f"{name}{number}", "text": name * (number + 1)} for number in range(4)))
    pipeline.run()
    objects, layout = CountedObjects.over(pipeline.objects), pipeline.layout
    ledger = [item.size_bytes for item in objects.list(layout.scopes())]
    segments = [item for item in objects.list(f"{layout.predictions()}/") if item.uri.endswith(".parquet")]
    now = [0.0]
    reader = CachedReader(objects, clock=lambda: now[0])
    with objects.expect(LIST=1, GET=1):
        found = ledger_storage(reader, layout)
    now[0] = 59.0
    with objects.expect():
        assert ledger_storage(reader, layout) == found
    now[0] = 60.0
    with objects.expect(LIST=1, GET=1):
        ledger_storage(reader, layout)
    assert found == LedgerStorage(
        answers=8,
        answers_bytes=found.answers_bytes,
        segments=found.segments,
        open_shards=0,
        scopes=1,
        ledger_objects=len(ledger),
        ledger_bytes=sum(ledger),
    )
    assert 0 < found.answers_bytes <= sum(item.size_bytes for item in segments)
    monkeypatch.setattr(module, "MAX_LISTED_OBJECTS", 1)
    bounded = ledger_storage(CachedReader(objects), layout)
    assert (bounded.is_complete, bounded.ledger_objects) == (False, 1)
    shared = ledger_storage(CachedReader(objects), layout, shared=True)
    assert (shared.answers, shared.is_shared) == (0, True)
