"""Whole runs of pipelines that read an index: what is paid, written and left alone, whatever others write meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.ingest.replay import replay
from opensearch_batch.core.ledger.head import ClaimLost
from opensearch_batch.core.runs import index_objects
from opensearch_batch.core.types.manifest import Shard
from tests.core.index_runs import SOURCE, IndexPipeline
from tests.core.memory_indexes import each_document
from tests.core.whole_runs import Run, vector_of
from tests.stored import dead_letters, present


def filled(count: int = 7, **options: Any) -> IndexPipeline:
    """Return a pipeline whose source has documents."""
    pipeline = IndexPipeline(**options)
    for number in range(count):
        pipeline.source.put(f"d{number}", {"text": f"t{number}", "price": number})
    return pipeline


def counts(run: Run) -> dict[str, int]:
    """Return the counts of a run that are not zero."""
    account = present(run.account)
    names = ("read", "indexed", "unchanged", "dead_letters", "waiting", "paid", "removed", "deleted", "duplicates")
    return {name: getattr(account.counts, name) for name in names if getattr(account.counts, name)}


def test_the_documents_of_an_index_get_their_vectors_in_place() -> None:
    """Only the vectors are written; the other fields are as they were."""
    pipeline = filled(shards=3)
    run = pipeline.run()
    assert counts(run) == {"read": 7, "indexed": 7, "paid": 7}
    assert pipeline.documents == {
        f"d{number}": {"text": f"t{number}", "price": number, "v": vector_of(f"t{number}")} for number in range(7)
    }


def test_our_own_update_is_no_change() -> None:
    """The run after the first one reads the documents again, pays for nothing and writes nothing."""
    pipeline = filled()
    pipeline.run()
    writes = pipeline.source.writes
    run = pipeline.run()
    assert counts(run) == {"read": 7, "unchanged": 7}
    assert pipeline.source.writes == writes
    pipeline.objects.opened.clear()
    assert pipeline.run().account is None


def test_a_field_that_the_model_does_not_read_is_no_change_in_place() -> None:
    """A changed price is not written, and not paid for."""
    pipeline = filled()
    pipeline.run()
    pipeline.source.update("d1", price=100)
    assert counts(pipeline.run()) == {"read": 7, "unchanged": 7}
    assert pipeline.documents["d1"]["price"] == 100


def test_updates_and_deletions_are_counted_exactly() -> None:
    """Of ten documents, one that changed is paid for and written; one that was deleted is counted as removed."""
    pipeline = filled(10)
    pipeline.run()
    pipeline.source.update("d1", text="other")
    pipeline.source.delete("d2")
    pipeline.source.put("new", {"text": "new"})
    run = pipeline.run()
    assert counts(run) == {"read": 10, "indexed": 2, "unchanged": 8, "paid": 2, "removed": 1}
    assert pipeline.documents["d1"]["v"] == vector_of("other")
    assert "d2" not in pipeline.documents


def test_a_document_that_changes_meanwhile_is_left_to_the_next_run() -> None:
    """The prediction of its earlier text is not written; the next run pays for the new text."""
    pipeline = filled()
    run = pipeline.new_run()
    run.stages.pop(0)()
    pipeline.source.update("d1", text="other")
    pipeline.source.delete("d2")
    run.finish()
    assert counts(run) == {"read": 7, "indexed": 5, "waiting": 2, "paid": 7}
    assert "v" not in pipeline.documents["d1"]
    assert counts(pipeline.run()) == {"read": 6, "indexed": 1, "unchanged": 5, "paid": 1, "removed": 1}
    assert pipeline.documents["d1"]["v"] == vector_of("other")


def test_a_write_between_fetch_and_update_is_not_lost() -> None:
    """The index refuses the update of a document that another writer wrote after it was fetched."""
    pipeline = filled(3)

    def write() -> None:
        pipeline.indexes.before_bulk = lambda: None
        pipeline.source.update("d1", text="other")
        pipeline.source.delete("d2")

    pipeline.indexes.before_bulk = write
    assert counts(pipeline.run()) == {"read": 3, "indexed": 1, "waiting": 2, "paid": 3}
    assert pipeline.documents["d1"] == {"text": "other", "price": 1}
    pipeline.run()
    assert pipeline.documents["d1"]["v"] == vector_of("other")


def test_a_run_that_lost_its_claim_writes_nothing_in_place() -> None:
    """Its vectors may be of another model, though the texts are the same; the guard does not see that."""
    pipeline = filled(3)

    def claim() -> None:
        pipeline.indexes.before_fetch = lambda: None
        newer = pipeline.new_run(force=True)
        newer.stages.pop(0)()

    pipeline.indexes.before_fetch = claim
    with pytest.raises(ClaimLost, match="has claimed this scope"):
        pipeline.run()
    assert pipeline.source.writes == 0


def test_a_change_of_another_field_meanwhile_is_kept() -> None:
    """The vector is written into the document as it is by then."""
    pipeline = filled()
    run = pipeline.new_run()
    run.stages.pop(0)()
    pipeline.source.update("d1", price=100)
    run.finish()
    assert counts(run) == {"read": 7, "indexed": 7, "paid": 7}
    assert pipeline.documents["d1"] == {"text": "t1", "price": 100, "v": vector_of("t1")}


def test_a_document_that_leaves_the_query_stays_as_it_is() -> None:
    """In place nothing is deleted, whatever the pipeline has removed from its ledger."""
    pipeline = filled(query={"term": {"lang": "en"}})
    for number in range(7):
        pipeline.source.update(f"d{number}", lang="en" if number else "de")
    assert counts(pipeline.run()) == {"read": 6, "indexed": 6, "paid": 6}
    pipeline.source.update("d1", lang="de")
    assert counts(pipeline.run()) == {"read": 5, "unchanged": 5, "removed": 1}
    assert pipeline.documents["d1"]["v"] == vector_of("t1")
    assert "v" not in pipeline.documents["d0"]


def test_a_changed_routing_deletes_nothing_in_place() -> None:
    """Two documents of the index with one id are the user's, though the ledger knows one of them."""
    pipeline = IndexPipeline(shards=2)
    routings = sorted(("a", "b", "c", "d"), key=lambda each: pipeline.source.shard_of("x", each))
    pipeline.source.put("x", {"text": "first"}, routings[0])
    pipeline.source.put("y", {"text": "y"})
    pipeline.run()
    pipeline.source.put("x", {"text": "second"}, routings[-1])
    run = pipeline.run()
    assert counts(run) == {"read": 3, "indexed": 1, "unchanged": 1, "duplicates": 1, "paid": 1}
    vectors = {each.source["text"]: each.source["v"] for each in each_document(pipeline.source)}
    assert vectors == {text: vector_of(text) for text in ("first", "second", "y")}


def test_an_index_with_routing_is_updated_with_it() -> None:
    """A document is fetched and updated in its own shard."""
    pipeline = IndexPipeline(shards=4)
    for number in range(8):
        pipeline.source.put(f"d{number}", {"text": f"t{number}"}, f"r{number}" if number % 2 else None)
    assert counts(pipeline.run()) == {"read": 8, "indexed": 8, "paid": 8}
    assert all("v" in each.source for each in each_document(pipeline.source))
    assert sum(each.routing is not None for each in each_document(pipeline.source)) == 4


def test_documents_are_copied_whole_to_another_index() -> None:
    """Ids, routing values and all members are kept; the predictions are added, and replace a member of their name."""
    pipeline = filled(3, in_place=False)
    pipeline.source.put("routed", {"text": "r", "deep": {"number": 1.50}, "v": [9.0, 9.0]}, "somewhere")
    assert counts(pipeline.run()) == {"read": 4, "indexed": 4, "paid": 4}
    assert pipeline.documents["d1"] == {"text": "t1", "price": 1, "v": vector_of("t1")}
    assert pipeline.documents["routed"] == {"text": "r", "deep": {"number": 1.5}, "v": vector_of("r")}
    assert {each.id: each.routing for each in each_document(pipeline.target)}["routed"] == "somewhere"
    pipeline.source.update("d1", price=100)
    pipeline.source.delete("d2")
    run = pipeline.run(on_removed="delete")
    assert counts(run) == {"read": 3, "indexed": 1, "unchanged": 2, "removed": 1, "deleted": 1}
    assert sorted(pipeline.documents) == ["d0", "d1", "routed"]
    assert pipeline.documents["d1"]["price"] == 100


@pytest.mark.parametrize("service", ["openai", "sagemaker"])
def test_a_copy_has_the_members_of_the_record_only(service: str) -> None:
    """Members that the service or the pipeline adds to rows do not reach the documents."""
    pipeline = filled(2, service=service, in_place=False)
    pipeline.run()
    assert pipeline.documents["d1"] == {"text": "t1", "price": 1, "v": vector_of("t1")}


def test_only_blocks_that_changed_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write changes the block that a document leaves and the one that it enters; no other is opened."""
    monkeypatch.setattr(index_objects, "BLOCK_NUMBERS", 4)
    pipeline = filled(20, in_place=False)
    pipeline.run()
    pipeline.source.update("d5", text="other")
    run = pipeline.run()
    assert counts(run) == {"read": 4, "indexed": 1, "unchanged": 3, "paid": 1}
    assert present(run.account).counts.objects == 6


def test_with_a_version_field_our_own_update_changes_no_block() -> None:
    """The run after the first one reads the document without the field only; one with a higher version is read."""
    pipeline = IndexPipeline(version_field="at")
    for number in range(40):
        pipeline.source.put(f"d{number}", {"text": f"t{number}", "at": number})
    pipeline.source.put("never", {"text": "never"})
    assert counts(pipeline.run()) == {"read": 41, "indexed": 41, "paid": 41}
    assert counts(pipeline.run()) == {"read": 1, "unchanged": 1}
    assert pipeline.run().account is None
    pipeline.source.update("d5", text="other", at=50)
    pipeline.source.update("never", text="other never")
    run = pipeline.run()
    assert (present(run.account).counts.paid, present(run.account).counts.indexed) == (2, 2)
    assert pipeline.documents["d5"]["v"] == vector_of("other")
    assert pipeline.documents["never"]["v"] == vector_of("other never")


def test_a_rebuild_writes_all_vectors_again_and_pays_nothing() -> None:
    """Also those that others removed from the documents."""
    pipeline = filled()
    pipeline.run()
    pipeline.source.put("d1", {"text": "t1"})
    run = pipeline.run(rebuild=True)
    assert counts(run) == {"read": 7, "indexed": 1, "unchanged": 6}
    assert pipeline.documents["d1"]["v"] == vector_of("t1")


def test_a_document_that_lost_its_vector_gets_it_again() -> None:
    """A client that replaces whole documents removes their vectors; the same texts are not paid for again."""
    pipeline = filled(12, shards=2)
    pipeline.run()
    pipeline.source.put("d1", {"text": "t1", "price": 1})
    pipeline.source.delete("d2")
    pipeline.source.put("d2", {"text": "t2"})
    pipeline.source.put("d3", {"text": "other"})
    assert counts(pipeline.run()) == {"read": 12, "indexed": 3, "unchanged": 9, "paid": 1}
    vectors = [pipeline.documents[f"d{number}"]["v"] for number in (1, 2, 3)]
    assert vectors == [vector_of(text) for text in ("t1", "t2", "other")]
    again = present(pipeline.run().account).counts
    assert (again.unchanged, again.indexed) == (again.read, 0)


def test_a_dead_record_is_not_written_again_for_its_missing_vector() -> None:
    """It has none, and is tried again only when it changes."""
    pipeline = filled(10, max_dead_letters="50%")
    pipeline.source.put("empty", {"price": 3})
    pipeline.run()
    pipeline.source.update("d1", price=5)
    run = pipeline.run()
    assert counts(run) == {"read": 11, "unchanged": 10, "dead_letters": 1}


def test_an_index_that_was_created_again_is_filled_from_the_store() -> None:
    """A reindexed source costs nothing."""
    pipeline = filled()
    pipeline.run()
    pipeline.source = pipeline.indexes.create(SOURCE, v={"type": "knn_vector", "dimension": 2})
    for number in range(7):
        pipeline.source.put(f"d{number}", {"text": f"t{number}"})
    assert counts(pipeline.run()) == {"read": 7, "indexed": 7}
    assert pipeline.documents["d3"]["v"] == vector_of("t3")


def test_a_document_without_text_is_a_dead_letter_until_it_has_one() -> None:
    """It stays as it is."""
    pipeline = filled(max_dead_letters="50%")
    pipeline.source.put("empty", {"price": 3})
    assert counts(pipeline.run()) == {"read": 8, "indexed": 7, "dead_letters": 1, "paid": 7}
    assert pipeline.documents["empty"] == {"price": 3}
    pipeline.source.update("empty", text="now")
    pipeline.run()
    assert pipeline.documents["empty"]["v"] == vector_of("now")


def test_dead_letters_in_place_are_not_replayed() -> None:
    """A replay would replace the user's document."""
    pipeline = filled(3, repair_at_most="100%")
    pipeline.service.fails = {"t1": 2}
    run = pipeline.run()
    assert counts(run)["dead_letters"] == 1
    (queue,) = present(run.account).dead_letters
    assert len(dead_letters(pipeline.objects, queue)) == 1
    with pytest.raises(ConfigError, match="written in place"):
        replay(queue, pipeline.objects, pipeline.indexes)


def test_a_run_in_place_refuses_deletions() -> None:
    """Whatever staged them."""
    pipeline = filled(1)
    run = pipeline.new_run()
    run.stages.pop(0)()
    with pytest.raises(FatalError, match="deletes nothing"):
        run.ingest(Shard("deletions", staged="s3://lake/work/nothing", documents=1))


def test_a_run_in_place_has_no_other_source_or_index() -> None:
    """Each would replace whole documents by those of the run."""
    pipeline = filled(1)
    pipeline.settings.check_run(reads_own_source=True, index=SOURCE)
    for reads_own_source, index in ((False, SOURCE), (True, "other")):
        with pytest.raises(ConfigError, match="writes into the documents"):
            pipeline.settings.check_run(reads_own_source=reads_own_source, index=index)
    copying = IndexPipeline(in_place=False).settings
    copying.check_run(reads_own_source=False, index="any")
    copying.check_target(is_source=False, index="books")
    for settings, is_source in ((copying, True), (pipeline.settings, False)):
        with pytest.raises(ConfigError, match="the source index"):
            settings.check_target(is_source=is_source, index="an-alias")


def test_a_listing_that_is_not_whole_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that is not listed would count as removed."""
    pipeline = filled()
    search = pipeline.indexes.search

    def lacking(body: Any) -> Any:
        answer = search(body)
        del answer["hits"]["hits"][3]
        return answer

    monkeypatch.setattr(pipeline.indexes, "search", lacking)
    with pytest.raises(FatalError, match="7 documents, but 6 were listed"):
        pipeline.run()


def test_an_expired_point_in_time_is_retried() -> None:
    """It is no removed document."""
    pipeline = filled()
    with pipeline.opened(pipeline.source_prefix) as (store, listing):
        pipeline.indexes.points.clear()
        with pytest.raises(RetriableError, match="expired"), store.open(listing.objects[0].uri) as stream:
            stream.read()


def test_the_point_in_time_is_closed() -> None:
    """After success and after an error."""
    pipeline = filled()
    pipeline.run()
    assert pipeline.indexes.points == {}
    with pytest.raises(ConfigError, match="stop"), pipeline.opened(pipeline.source_prefix):
        raise ConfigError("stop")
    assert pipeline.indexes.points == {}


def test_the_lines_of_a_block_are_the_documents_in_one_order() -> None:
    """Pages grow with the size of the documents, and no document is on two pages."""
    pipeline = filled(450, in_place=False)
    with pipeline.opened(pipeline.source_prefix) as (store, listing):
        (block,) = listing.objects
        lines = present(store.read(block.uri)).content.splitlines()
        assert lines == present(store.read(block.uri)).content.splitlines()
    assert len(set(lines)) == 450
    assert lines[1] == b'{"_id":"d1","text": "t1", "price": 1}'


@given(st.data())
def test_whatever_happens_the_documents_get_the_vectors_of_their_texts(data: st.DataObject) -> None:
    """Others write and delete between all stages, runs are killed anywhere; no text is paid twice, none is lost."""
    in_place = data.draw(st.booleans())
    version_field = data.draw(st.sampled_from([None, "at"]))
    pipeline = IndexPipeline(in_place=in_place, shards=data.draw(st.integers(1, 3)), version_field=version_field)
    expected: dict[str, dict[str, Any]] = {}
    rng, clock = data.draw(st.randoms()), iter(range(1_000_000))

    def others_write() -> None:
        for _ in range(rng.randrange(3)):
            name = f"d{rng.randrange(8)}"
            if name in expected and rng.random() < 0.3:
                del expected[name]
                pipeline.source.delete(name)
                continue
            members = {"text": f"t{rng.randrange(6)}", "price": rng.randrange(9), "at": next(clock)}
            expected[name] = members
            before = pipeline.source.documents.get(name, {}) if in_place and rng.random() < 0.5 else {}
            pipeline.source.put(name, {**before, **members})

    pipeline.source.put("first", {"text": "first", "at": 0})
    expected["first"] = {"text": "first", "at": 0}
    pipeline.indexes.before_bulk = others_write
    for _ in range(3):
        others_write()
        run = pipeline.new_run(on_removed="keep" if in_place else "delete", max_removed="100%")
        if rng.random() < 0.5:
            pipeline.life.left = rng.randrange(60)
            run.killed_after(rng.randrange(60))
        while run.stages and rng.random() < 0.9:
            run.stages[0]()
            run.stages.pop(0)
            others_write()
    pipeline.indexes.before_bulk = lambda: None
    for _ in range(2):
        pipeline.run(on_removed="keep" if in_place else "delete", max_removed="100%")
    wanted = {name: {**members, "v": vector_of(members["text"])} for name, members in expected.items()}
    assert pipeline.documents == wanted
    assert max(pipeline.service.paid.values()) == 1
    assert pipeline.indexes.points == {}
