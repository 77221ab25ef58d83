"""The ledger is compared with store and index, and made again from them; the next run pays for nothing that it had."""

from __future__ import annotations

from typing import Any

import pytest

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.ledger.head import ClaimLost
from opensearch_batch.core.ledger.predictions import NewShard, PredictionStore
from opensearch_batch.core.runs import ledger_check
from opensearch_batch.core.runs.ledger_check import LedgerCheck, ScopeState, StoreState, read_heads, store_folders
from opensearch_batch.core.runs.ledger_rebuild import rebuild_scope, rebuild_stores
from opensearch_batch.core.runs.prepare_options import scope_of
from tests.core.whole_runs import INDEX, Pipeline, document_of

SCOPE = scope_of("s3://lake/in/", (), ())


def record(number: int, text: str = "") -> dict[str, Any]:
    """A record."""
    return {"id": f"d{number}", "text": text or f"text {number}"}


@pytest.fixture
def pipeline() -> Pipeline:
    """A pipeline after its first run."""
    pipeline = Pipeline(max_records=10)
    pipeline.put("a.jsonl", *map(record, range(5)))
    pipeline.put("b.jsonl", *map(record, range(5, 8)))
    pipeline.run()
    return pipeline


def differences(pipeline: Pipeline, samples: int = 100) -> list[str]:
    """Compare everything."""
    check = LedgerCheck(pipeline.objects, pipeline.layout, pipeline.cluster, samples=samples)
    return list(check.differences())


def rebuild(pipeline: Pipeline, scope: str = SCOPE) -> int:
    """Make the ledger of a scope again."""
    return rebuild_scope(pipeline.objects, pipeline.layout, pipeline.cluster, scope=scope, index=INDEX)


def store(pipeline: Pipeline) -> PredictionStore:
    """The prediction store."""
    return PredictionStore(pipeline.objects, pipeline.layout.predictions())


def files(pipeline: Pipeline, part: str) -> list[str]:
    """The files of the ledger or of the store."""
    return [
        item.uri for item in pipeline.objects.list("s3://lake/work/p/") if part in item.uri and "/run" not in item.uri
    ]


def test_the_ledger_is_described(pipeline: Pipeline) -> None:
    """With scopes, states, segments and open shards."""
    store(pipeline).reserve([b"k" * 16], lambda located: [NewShard("job", located.keys.tobytes())])
    heads, unreadable = read_heads(pipeline.objects, pipeline.layout)
    state = ScopeState.of(SCOPE, heads[SCOPE])
    assert (list(heads), unreadable, state.states, state.objects) == ([SCOPE], [], {"indexed": 8}, 2)
    assert (state.index, state.run, state.is_committed) == (INDEX, "run1", True)
    (folder,) = store_folders(pipeline.objects, pipeline.layout)
    described = StoreState.of(pipeline.objects, folder)
    assert (described.answers, described.segments, described.open) == (8, 1, {"job": 1})
    assert described.bytes > 8 * 8


def test_a_store_is_described_with_its_size_and_what_is_needed(pipeline: Pipeline) -> None:
    """An answer that two records share counts twice; all count if nobody knows, because a head is damaged."""
    pipeline.put("a.jsonl", record(1), {**record(1), "id": "same"}, record(4))
    pipeline.run(on_removed="keep")
    folder = pipeline.predictions
    store(pipeline).register(pipeline.layout.scopes())
    stored = [item.size_bytes for item in pipeline.objects.list(f"{folder}/")]
    described = StoreState.of(pipeline.objects, folder)
    assert (described.answers, described.needed, described.garbage) == (8, 6, 0)
    assert (described.size.objects, described.size.bytes) == (len(stored), sum(stored))
    # The keys of the shard that is closed.
    store(pipeline).collect({}, retention_s=0)
    assert StoreState.of(pipeline.objects, folder).garbage == 1
    pipeline.objects.write(pipeline.layout.scope_head(SCOPE), b"{")
    assert StoreState.of(pipeline.objects, folder).needed == 8


def test_a_run_that_has_not_committed_is_named(pipeline: Pipeline) -> None:
    """Another run will do its work again."""
    pipeline.put("c.jsonl", record(9))
    assert pipeline.new_run().killed_after(8)
    heads, _ = read_heads(pipeline.objects, pipeline.layout)
    assert not ScopeState.of(SCOPE, heads[SCOPE]).is_committed


@pytest.mark.parametrize("samples", [1, 3, 100])
def test_after_a_run_there_are_no_differences(pipeline: Pipeline, samples: int) -> None:
    """Also after changes by others that raise a version."""
    pipeline.cluster.found.update("d1", more=1)
    pipeline.documents["other"] = {}
    pipeline.put("b.jsonl", record(6, "changed"))
    pipeline.run(on_removed="keep")
    assert differences(pipeline, samples) == []


def test_differences_of_the_index_are_named(pipeline: Pipeline) -> None:
    """Documents that are missing or old; an index that is another one."""
    pipeline.documents.pop("d3")
    pipeline.cluster.found.versions["d4"] -= 1
    found = differences(pipeline)
    assert len(found) == 3
    assert "1 of 8 sampled documents are missing in index books, such as 'd3'; a run with rebuild" in found[0]
    assert "1 of 8 sampled documents are older than the ledger says in index books, such as 'd4'" in found[1]
    assert "index books: 7 documents, and the ledger has 8" in found[2]
    pipeline.cluster.delete_index()
    assert "index books has the UUID u2, not u1; the next run writes all documents to it" in differences(pipeline)[0]


@pytest.mark.parametrize("damage", [b"damaged", None])
def test_differences_of_the_store_are_named(pipeline: Pipeline, damage: bytes | None) -> None:
    """A segment that is lost, and after it was dropped the answers that it had; a shard that nobody can submit."""
    (segment,) = files(pipeline, "/segments/")
    if damage is None:
        pipeline.objects.delete(segment)
    else:
        pipeline.objects.write(segment, damage)
    (found,) = differences(pipeline)
    assert segment in found
    store(pipeline).drop(next(iter(store(pipeline).head().segments)))
    store(pipeline).reserve([b"k" * 16], lambda located: [NewShard("job", located.keys.tobytes())])
    shard, absent = differences(pipeline)
    assert "open shard job has no job and no input; `opensearch-batch ledger rebuild --predictions` closes it" in shard
    assert "the answers of 8 of 8 indexed records are not in the prediction store" in absent


def test_rows_that_differ_from_their_head_are_named(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """And rows that cannot be read, and heads."""
    monkeypatch.setattr(ledger_check, "LOOKUP_BYTES", 0)
    head_uri = pipeline.layout.scope_head(SCOPE)
    head = pipeline.objects.read(head_uri)
    assert head is not None
    pipeline.objects.write(head_uri, head.content.replace(b'"indexed":5', b'"indexed":4'))
    (found,) = differences(pipeline)
    assert "a.jsonl has rows {'indexed': 5}, and its head says {'indexed': 4}" in found
    for uri in files(pipeline, "/rows/"):
        pipeline.objects.delete(uri)
    assert all("this file of the record ledger is missing" in each for each in differences(pipeline))
    pipeline.objects.write(head_uri, b"{")
    assert "head.json: damaged" in differences(pipeline)[0]
    pipeline.objects.delete(head_uri)
    pipeline.objects.write(f"{pipeline.layout.scope_rows(SCOPE)}/x.parquet", b"")
    assert "head.json: missing, though the scope has rows" in differences(pipeline)[0]
    pipeline.objects.write(f"{pipeline.layout.predictions()}/head.json", b"{")
    assert differences(pipeline)[-1].endswith("nothing else was compared")


@pytest.mark.parametrize("damaged", ["head", "rows", "neither"])
@pytest.mark.parametrize("mode", ["snapshot", "append"])
def test_a_rebuilt_ledger_leads_to_what_a_run_would_have_done(pipeline: Pipeline, damaged: str, mode: Any) -> None:
    """Every document is written from the store, and what changed meanwhile is found; a late write loses."""
    versions = dict(pipeline.cluster.found.versions)
    if damaged == "head":
        pipeline.objects.write(pipeline.layout.scope_head(SCOPE), b"{")
    for uri in files(pipeline, "/rows/") if damaged == "rows" else ():
        pipeline.objects.write(uri, b"PAR1")
    if damaged != "neither":
        with pytest.raises(FatalError, match="ledger rebuild"):
            pipeline.run(rebuild=True)
    assert rebuild(pipeline) == 8
    paid = pipeline.service.paid.copy()
    changed, added = record(1, "changed"), record(9)
    pipeline.put("a.jsonl", changed, added, *map(record, range(2, 5)))
    pipeline.run(mode=mode, on_removed="delete")
    records = [changed, added, *map(record, range(2, 8)), *([record(0)] if mode == "append" else [])]
    assert pipeline.documents == {each["id"]: document_of(each) for each in records}
    assert pipeline.service.paid - paid == {"changed": 1, "text 9": 1}
    assert all(pipeline.cluster.found.versions[name] > versions[name] for name in ("d2", "d7"))
    assert differences(pipeline) == []
    assert pipeline.new_run(mode=mode).stages
    writes = pipeline.cluster.found.writes
    pipeline.run(mode=mode, on_removed="delete")
    assert pipeline.cluster.found.writes == writes


def test_a_rebuilt_scope_has_no_documents_of_another_one() -> None:
    """They would be deleted as removed."""
    pipeline = Pipeline()
    for day in ("1", "2"):
        pipeline.put(f"{day}/a.jsonl", *(record(10 * int(day) + n) for n in range(3)))
        pipeline.run(f"{day}/")
    assert rebuild(pipeline, scope_of("s3://lake/in/1/", (), ())) == 3
    pipeline.put("1/a.jsonl", record(10), record(11))
    pipeline.run("1/", on_removed="delete")
    assert sorted(pipeline.documents) == ["d10", "d11", "d20", "d21", "d22"]


def test_a_ledger_of_an_empty_index_is_empty(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without an index there is none."""
    pipeline.cluster.delete_index()
    assert rebuild(pipeline) == 0
    paid = pipeline.service.paid.copy()
    pipeline.run()
    assert (len(pipeline.documents), pipeline.service.paid) == (8, paid)
    monkeypatch.setattr(pipeline.cluster, "index", {}.get)
    with pytest.raises(ConfigError, match="no index 'books'"):
        rebuild(pipeline)


@pytest.mark.parametrize("damaged", [True, False])
def test_a_store_is_made_again_from_its_segments(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, *, damaged: bool
) -> None:
    """A damaged one is left out; while its job has its output, nothing is paid for again."""
    pipeline.put("c.jsonl", *map(record, range(10, 13)))
    pipeline.run()
    first, second = files(pipeline, "/segments/")
    pipeline.objects.write(second, b"damaged")
    store(pipeline).reserve([b"k" * 16], lambda located: [NewShard("job", located.keys.tobytes())])
    if damaged:
        pipeline.objects.write(f"{pipeline.layout.predictions()}/head.json", b"{")
    monkeypatch.setattr("opensearch_batch.core.ledger.predictions.REBUILT_SEGMENTS", 1)
    (reason,) = rebuild_stores(pipeline.objects, pipeline.layout)
    assert second in reason
    head = store(pipeline).head()
    assert list(head.segments) == [first.rpartition("/")[2].removesuffix(".parquet")]
    assert (head.open, len(head.indexes)) == ({}, 1)
    paid = pipeline.service.paid.copy()
    pipeline.cluster.delete_index()
    pipeline.run()
    assert (pipeline.service.paid, len(pipeline.documents)) == (paid, 11)
    assert differences(pipeline) == []


def test_a_rebuilt_store_keeps_its_open_shards_and_who_paid(pipeline: Pipeline) -> None:
    """So a running job is not paid for twice, and its output is not read twice."""
    before = store(pipeline).head()
    store(pipeline).reserve([b"k" * 16], lambda located: [NewShard("job", located.keys.tobytes())])
    pipeline.objects.write(f"{pipeline.layout.job('job')}/input.jsonl", b"")
    assert rebuild_stores(pipeline.objects, pipeline.layout) == []
    head = store(pipeline).head()
    assert (head.segments, list(head.open)) == (before.segments, ["job"])
    assert store(pipeline).shard_keys("job") == [b"k" * 16]


def test_a_run_in_progress_loses_its_claim_to_a_rebuild(pipeline: Pipeline) -> None:
    """Also one that has written nothing yet: it fails, and the next run does its work."""
    pipeline.put("c.jsonl", record(9))
    run = pipeline.new_run()
    run.stages.pop(0)()
    rebuild(pipeline)
    with pytest.raises(ClaimLost, match="run ledger rebuild has claimed this scope after run run2"):
        run.finish()
    pipeline.run()
    assert pipeline.documents["d9"] == document_of(record(9))
