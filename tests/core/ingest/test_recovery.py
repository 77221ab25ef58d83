"""Recovery: an equal document is not sent again, a different or absent one is, and no more is fetched than needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import BatchError, ConfigError, RetriableError
from opensearch_batch.core.ingest.request import OpType
from opensearch_batch.core.ingest.sinks.base import Entry, Item
from opensearch_batch.core.ingest.sinks.bulk_lines import lines_of
from opensearch_batch.core.ingest.sinks.recovery import BATCH_BYTES, skip_indexed
from opensearch_batch.core.opensearch.cluster import Index
from opensearch_batch.core.types.rows import Blank, MappedRows, Unchanged
from opensearch_batch.core.types.vector_field import VectorField
from tests.lab import Lab
from tests.scripted import Answer, Scripted


def item(name: str, source: Any, *, op_type: OpType = "index", routing: str | None = None) -> Item:
    """Return the item of a document."""
    return Item(name, lines_of(name, msgspec.json.encode(source), op_type=op_type, routing=routing), MappedRows(()))


def settled(lab: Lab, index: str, entries: Sequence[Any], *vectors: VectorField) -> list[str]:
    """Return for each entry whether it is there or sent."""
    found = skip_indexed(entries, lab.cluster(), Index(index, "", vectors), in_flight_bytes=1 << 20)
    return ["there" if isinstance(entry, Unchanged) else "sent" for entry in found]


@pytest.mark.parametrize(
    ("held", "sent", "verdict"),
    [
        ({"a": 1, "b": [None, {"c": 0.1}]}, {"b": [None, {"c": 0.1}], "a": 1}, "there"),
        ({"a": 1}, {"a": 2}, "sent"),
        ({"a": 1}, {"a": True}, "sent"),
        ({"a": 1}, {"a": "1"}, "sent"),
        ({"a": 1}, {"a": None}, "sent"),
        ({"a": None}, {}, "sent"),
        ({"a": 1, "b": 1}, {"a": 1}, "sent"),
        ({"a": {}}, {"a": {}}, "there"),
    ],
)
def test_equal_documents_are_there(lab: Lab, index: str, held: Any, sent: Any, verdict: str) -> None:
    """Documents are compared as JSON: members have no order, a number is not a string, and true is not 1."""
    lab.node("PUT", index, {"mappings": {"enabled": False}})
    lab.node("PUT", f"{index}/_doc/x", held)
    assert settled(lab, index, [item("x", sent), item("y", sent)]) == [verdict, "sent"]


def test_vectors_are_compared_as_the_index_keeps_them(lab: Lab, index: str) -> None:
    """From 3.0 on the node returns vectors with 32 bits; only a difference in those counts."""
    vector = {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene"}}
    properties = {"v": vector, "in": {"properties": {"v": vector}}}
    lab.node("PUT", index, {"settings": {"index.knn": True}, "mappings": {"properties": properties}})
    document = {"v": [0.12345678901234, 1], "in": {"v": [1e-9, 0.1]}, "n": 1}
    lab.node("PUT", f"{index}/_doc/x", document)
    fields = VectorField("v", 2), VectorField("in.v", 2)
    rounded = {"v": [0.12345679, 1.0], "in": {"v": [1e-9, 0.1]}, "n": 1}
    for sent, verdict in (
        (document, "there"),
        (rounded, "there"),
        ({**document, "v": [0.1234569, 1]}, "sent"),
        ({**document, "v": None}, "sent"),
    ):
        assert settled(lab, index, [item("x", sent)], *fields) == [verdict]


@pytest.mark.parametrize(
    ("sent", "held", "verdict"),
    [
        ({"v": [0.12345678901234, 1]}, {"v": [0.12345679, 1.0]}, "there"),
        ({"v": [0.12345678901234, 1]}, {"v": [0.1234569, 1.0]}, "sent"),
        ({"in": {"v": [0.1]}}, {"in": {"v": [0.10000000149011612]}}, "there"),
        ({"in.v": [0.1]}, {"in.v": [0.10000000149011612]}, "there"),
        ({"in": [{"v": [0.1]}, {}, 7]}, {"in": [{"v": [0.10000000149011612]}, {}, 7]}, "there"),
        ({"in": {"v": 0.1}}, {"in": {"v": 0.10000000149011612}}, "sent"),
        ({"n": [0.1]}, {"n": [0.10000000149011612]}, "sent"),
    ],
)
def test_only_vectors_are_compared_with_32_bits(
    scripted: Scripted, sent: dict[str, Any], held: dict[str, Any], verdict: str
) -> None:
    """As OpenSearch 3 answers, whichever version the other tests run on."""
    vectors = VectorField("v", 2), VectorField("in.v", 1)
    assert settled_with(scripted, {"x": held}, [item("x", sent)], *vectors) == [verdict]


def test_a_document_is_looked_up_by_its_route(lab: Lab, index: str) -> None:
    """Another shard may hold another document with the same id."""
    lab.node("PUT", index, {"settings": {"number_of_shards": 5}})
    lab.node("PUT", f"{index}/_doc/x?routing=north", {"n": 1})
    entries = [item("x", {"n": 1}, routing="north"), item("x", {"n": 1}, routing="south")]
    assert settled(lab, index, entries) == ["there", "sent"]


def test_an_upsert_is_left_to_the_index(lab: Lab, index: str) -> None:
    """An upsert is always sent: it merges, and the index reports when nothing changes."""
    lab.node("PUT", f"{index}/_doc/x", {"n": 1})
    assert settled(lab, index, [item("x", {"n": 1}, op_type="upsert")]) == ["sent"]


FIRST, SECOND = item("x", {"n": 1}), item("x", {"n": 2})
# Large enough to end a batch, so that what follows is asked after anew.
LARGE = item("large", "x" * BATCH_BYTES)


def settled_with(scripted: Scripted, held: dict[str, Any], entries: Sequence[Item], *vectors: VectorField) -> list[str]:
    """Return for each entry whether it is there or sent, given the documents of the index."""

    def mget(body: bytes) -> Answer:
        names = [wanted["_id"] for wanted in json.loads(body)["docs"]]
        return 200, {"docs": [{"_id": name} | ({"_source": held[name]} if name in held else {}) for name in names]}

    scripted.answer = mget
    found = skip_indexed(entries, scripted.cluster, Index("i", "", vectors), in_flight_bytes=8 * BATCH_BYTES)
    return ["there" if isinstance(entry, Unchanged) else "sent" for entry in found]


@pytest.mark.parametrize(
    ("held", "entries", "verdicts"),
    [
        pytest.param({"x": {"n": 2}}, [FIRST, SECOND], ["sent", "sent"], id="both were written"),
        pytest.param({"x": {"n": 1}}, [FIRST, SECOND], ["there", "sent"], id="the first was written"),
        pytest.param({"x": {"n": 1}}, [FIRST, SECOND, FIRST], ["there", "sent", "sent"], id="the first one again"),
        pytest.param({"x": {"n": 2}}, [FIRST, LARGE, SECOND], ["sent"] * 3, id="in another batch"),
        pytest.param(
            {"x": {"n": 1}}, [Item("x", lines_of("x", op_type="delete")), FIRST], ["sent", "sent"], id="after a delete"
        ),
        pytest.param(
            {"x": {"n": 1}}, [item("x", {"m": 1}, op_type="upsert"), FIRST], ["sent", "sent"], id="after an upsert"
        ),
        pytest.param({"x": {"n": 1}}, [item("y", {}), FIRST], ["sent", "there"], id="another id"),
        pytest.param(
            {"x": {"n": 1}}, [item("x", {}, routing="r"), FIRST], ["sent", "there"], id="another document of the id"
        ),
        pytest.param({"x": {"n": 1}}, [Item("", lines_of("", b"{}")), FIRST], ["sent", "there"], id="without an id"),
    ],
)
def test_what_follows_one_of_its_id_that_is_sent_is_sent(
    scripted: Scripted, held: dict[str, Any], entries: list[Item], verdicts: list[str]
) -> None:
    """The index may hold it already, but the earlier document would overwrite it."""
    assert settled_with(scripted, held, entries) == verdicts


def test_entries_that_are_no_documents_keep_their_order(lab: Lab, index: str) -> None:
    """Entries keep their order."""
    lab.node("PUT", index)
    entries: list[Entry] = [Blank(0), item("x", {"n": 1}), Blank(0), item("y", {"n": 1})]
    found = skip_indexed(entries, lab.cluster(), Index(index, ""), in_flight_bytes=1 << 20)
    assert list(found) == entries


@pytest.mark.parametrize(
    ("kind", "error", "remedy"),
    [
        ("security_exception", ConfigError, "grant the connection's user this permission"),
        ("no_shard_available_action_exception", RetriableError, "run again when the index is available"),
    ],
)
def test_what_cannot_be_read_is_not_taken_as_absent(
    scripted: Scripted, kind: str, error: type[BatchError], remedy: str
) -> None:
    """Otherwise it would silently be written again."""
    scripted.answers = [(200, {"docs": [{"_id": "x", "error": {"type": kind, "reason": "no"}}]})]
    found = skip_indexed([item("x", {})], scripted.cluster, Index("i", ""), in_flight_bytes=1)
    with pytest.raises(error, match=f"index i: a document that is to be compared cannot be read: no; {remedy}"):
        list(found)


def test_an_index_that_is_gone_is_named(lab: Lab, index: str) -> None:
    """The next attempt creates the index again and starts anew."""
    with pytest.raises(RetriableError, match=f"no such index \\[{index}\\]"):
        settled(lab, index, [item("x", {})])


def test_only_what_can_have_been_in_flight_is_fetched(scripted: Scripted) -> None:
    """After this many absent bytes in a row the rest is sent unseen; a document that is there resets the count."""
    half = [item(f"d{number}", "x" * (BATCH_BYTES // 2)) for number in range(20)]
    held = {"d3"}

    def mget(body: bytes) -> Answer:
        names = [wanted["_id"] for wanted in json.loads(body)["docs"]]
        source = "x" * (BATCH_BYTES // 2)
        return 200, {"docs": [{"_id": name} | ({"_source": source} if name in held else {}) for name in names]}

    scripted.answer = mget
    found = skip_indexed(half, scripted.cluster, Index("i", ""), in_flight_bytes=2 * BATCH_BYTES)
    assert [number for number, entry in enumerate(found) if isinstance(entry, Unchanged)] == [3]
    asked = [[wanted["_id"] for wanted in json.loads(body)["docs"]] for body in scripted.bodies]
    assert asked == [[f"d{number}", f"d{number + 1}"] for number in range(0, 8, 2)]
