"""Bulk writer: every document gets a verdict, whatever the server responds."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.ingest.request import IngestRequest, OpType
from opensearch_batch.core.ingest.sinks.base import Item, WrittenBody
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter, bodies
from opensearch_batch.core.ingest.sinks.bulk_lines import lines_of
from opensearch_batch.core.ingest.sinks.concurrency import SAMPLES_BEFORE_RETRY, ConcurrencyLimit
from tests.lab import Lab
from tests.scripted import Answer, Scripted, accept
from tests.waiting import WAIT_S

BODY = {"mappings": {"dynamic": "strict", "properties": {"n": {"type": "integer"}}}}
REQUEST = IngestRequest("i", {})
LATER = {"status": 429, "error": {"type": "busy"}}


class Blank(msgspec.Struct, frozen=True):
    """An entry that is no document."""

    name: str = ""
    size_bytes: int = 1


def item(number: int, value: object = 0, *, op_type: OpType = "index") -> Item:
    """Return an item."""
    return Item(f"d{number}", lines_of(f"d{number}", json.dumps({"n": value}).encode(), op_type=op_type), number)


def indexed(written: list[WrittenBody]) -> int:
    """Count the indexed documents."""
    return sum(body.indexed for body in written)


def names(body: bytes) -> list[str]:
    """Return the ids in a body."""
    return [next(iter(json.loads(line).values()))["_id"] for line in body.splitlines()[::2]]


def test_every_document_has_a_verdict(lab: Lab, index: str) -> None:
    """Refused documents are returned with their reason; the rest is indexed."""
    cluster = lab.cluster()
    cluster.create_index(index, BODY)
    wrong = Item("d3", lines_of("d3", b'{"other":1}'), 3)
    written = list(
        BulkWriter(cluster, IngestRequest(index, {}, max_body_bytes=60)).write(
            [item(0), item(1, "x"), item(2), wrong, item(4)]
        )
    )
    assert len(written) > 1
    assert indexed(written) == 3
    refused = [entry for body in written for entry in body.refused]
    assert [(entry.item.context, entry.status) for entry in refused] == [(1, 400), (3, 400)]
    assert "failed to parse field [n]" in refused[0].reason
    assert "strict_dynamic_mapping_exception" in refused[1].reason
    cluster.refresh(index)
    assert lab.node("GET", f"{index}/_count")["count"] == 3


@pytest.mark.parametrize(
    ("op_type", "indexed_again", "unchanged", "kept"),
    [("index", 2, 0, {"n": 2}), ("create", 0, 2, {"n": 1, "m": 1}), ("upsert", 1, 1, {"n": 2, "m": 1})],
)
def test_an_existing_document_is_replaced_kept_or_merged(
    lab: Lab, index: str, *, op_type: OpType, indexed_again: int, unchanged: int, kept: dict[str, int]
) -> None:
    """Index replaces, create keeps what is there, upsert merges and counts an equal document as unchanged."""
    cluster = lab.cluster()
    first = [Item(name, lines_of(name, b'{"n":1,"m":1}')) for name in "ab"]
    assert indexed(list(BulkWriter(cluster, IngestRequest(index, {})).write(first))) == 2
    second = [
        Item("a", lines_of("a", b'{"n":2}', op_type=op_type)),
        Item("b", lines_of("b", b'{"n":1}', op_type=op_type)),
    ]
    (written,) = BulkWriter(cluster, IngestRequest(index, {})).write(second)
    assert (written.indexed, written.unchanged, written.refused) == (indexed_again, unchanged, [])
    assert lab.node("GET", f"{index}/_doc/a")["_source"] == kept


def test_documents_are_routed_and_go_through_an_ingest_pipeline(lab: Lab, index: str) -> None:
    """Routing and ingest pipeline are applied by the index."""
    cluster = lab.cluster()
    lab.node("PUT", f"_ingest/pipeline/{index}", {"processors": [{"set": {"field": "seen", "value": True}}]})
    document = Item("a", lines_of("a", b'{"n":1}', routing="there"))
    (written,) = BulkWriter(cluster, IngestRequest(index, {}, ingest_pipeline=index, compress=True)).write([document])
    assert written.indexed == 1
    found = lab.node("GET", f"{index}/_doc/a?routing=there")
    assert (found["_routing"], found["_source"]) == ("there", {"n": 1, "seen": True})


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)) | st.integers(0, 60), max_size=30), st.integers(1, 200)
)
def test_bodies_keep_order_size_and_unique_ids(plan: list[Any], limit: int) -> None:
    """No body exceeds the limit unless one entry does, none holds an id twice, nothing is lost or reordered."""
    entries: list[Any] = [
        Blank("", size) if isinstance(size, int) else Item(str(size[0]), (b"x" * size[1],)) for size in plan
    ]
    cut = list(bodies(entries, max_body_bytes=lambda: limit))
    assert [entry for body in cut for entry in body.items] == [entry for entry in entries if isinstance(entry, Item)]
    assert sum(len(body.other_entries) for body in cut) == sum(not isinstance(entry, Item) for entry in entries)
    for body in cut:
        assert len({entry.id for entry in body.items}) == len(body.items)
        assert sum(len(entry.content) for entry in body.items) <= limit or len(body.items) == 1


def test_what_is_busy_is_sent_again_alone(scripted: Scripted) -> None:
    """A 503 for the body retries the body; a 429 for one document retries that document only."""
    scripted.answers = [
        (503, {"error": {"reason": "starting"}}),
        (200, {"errors": True, "items": [{"index": {"status": 201}}, {"index": LATER}]}),
    ]  # fmt: skip
    pauses: list[float] = []
    writer = BulkWriter(scripted.cluster, REQUEST, sleep=pauses.append)
    (written,) = writer.write([item(0), item(1)])
    assert (written.indexed, written.refused, written.resent, len(pauses)) == (2, [], 3, 2)
    assert [names(body) for body in scripted.bodies] == [["d0", "d1"], ["d0", "d1"], ["d1"]]


@pytest.mark.parametrize(
    "busy",
    [
        (503, {"error": {"reason": "starting"}}),
        (200, {"errors": True, "items": [{"index": LATER}]}),
        (200, {"errors": True, "items": [{"index": {"status": 409, "error": {"type": "version"}}}]}),
    ],
)
def test_fewer_bodies_are_in_flight_when_the_index_is_busy(scripted: Scripted, busy: Answer) -> None:
    """For its whole body or for one document."""
    scripted.answers = [busy]
    writer = BulkWriter(scripted.cluster, REQUEST, sleep=lambda _: None)
    before = writer.concurrency.limit
    assert [written.indexed for written in writer.write([item(0)])] == [1]
    assert writer.concurrency.limit < before


def test_a_connection_that_breaks_is_tried_again(scripted: Scripted) -> None:
    """Retrying is safe even if the first attempt arrived, as the ids are the same."""
    scripted.answers = [None, None]
    (written,) = BulkWriter(scripted.cluster, REQUEST, sleep=lambda _: None).write([item(0)])
    assert (written.indexed, len(scripted.bodies)) == (1, 3)


def test_what_stays_busy_is_given_up_as_retriable(scripted: Scripted) -> None:
    """After the retry window the error is retriable, so the task can be retried."""
    scripted.answers = [(429, {"error": {"reason": "queue full"}})] * 9
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    writer = BulkWriter(scripted.cluster, REQUEST, retry_window_s=1.0, clock=lambda: now[0], sleep=sleep)
    with pytest.raises(RetriableError, match="queue full"):
        list(writer.write([item(0)]))


def test_each_request_is_measured(scripted: Scripted) -> None:
    """Also one that failed: it takes 3 s, and the next one 1 s."""
    scripted.answers = [(429, {"error": {"reason": "queue full"}})]
    # The first, and those between the requests, are compared with the retry window.
    ticks = iter([0.0, 0.0, 3.0, 4.0, 4.0, 5.0, 6.0])
    writer = BulkWriter(scripted.cluster, REQUEST, clock=lambda: next(ticks), sleep=lambda _: None)
    (written,) = writer.write([item(0)])
    assert (written.requests, written.request_s, written.slowest_s) == (2, 4.0, 3.0)


def test_a_body_that_is_too_large_is_halved_until_it_passes(scripted: Scripted) -> None:
    """A body that is too large is halved, later bodies are smaller, and a single document is refused."""
    most = 4 * len(item(0).content)

    def limited(body: bytes) -> Answer:
        return accept(body) if len(body) <= most else (413, {"error": {"reason": "too large"}})

    scripted.answer = limited
    huge = Item("huge", lines_of("huge", b'{"a":"%s"}' % (b"x" * most)), "huge")
    written = list(BulkWriter(scripted.cluster, REQUEST).write([*map(item, range(10)), huge]))
    assert indexed(written) == 10
    assert [(entry.item.context, entry.status) for body in written for entry in body.refused] == [("huge", 413)]
    assert sum(len(names(body)) for body in scripted.bodies if len(body) <= most) == 10


def test_a_smaller_size_is_kept_for_the_bodies_that_follow(scripted: Scripted) -> None:
    """After one 413 no larger body is sent."""
    size = len(item(0).content)
    scripted.answers = [(413, {"error": {"reason": "too large"}})]
    written = list(
        BulkWriter(scripted.cluster, IngestRequest("i", {}, max_body_bytes=8 * size, max_in_flight=1)).write(
            map(item, range(24))
        )
    )
    assert indexed(written) == 24
    assert max(len(names(body)) for body in scripted.bodies[-3:]) <= 4


def test_verdicts_come_in_the_order_of_the_documents(scripted: Scripted) -> None:
    """A slow body delays the verdicts after it, not the bodies."""
    superseded = threading.Event()

    def slow_first(body: bytes) -> Answer:
        if names(body) == ["d0"]:
            assert superseded.wait(WAIT_S)
        else:
            superseded.set()
        return accept(body)

    scripted.answer = slow_first
    written = list(BulkWriter(scripted.cluster, IngestRequest("i", {}, max_body_bytes=1)).write(map(item, range(4))))
    assert [entry.id for body in written for entry in body.body.items] == ["d0", "d1", "d2", "d3"]
    assert len(scripted.bodies) == 4


def test_an_id_is_never_in_two_bodies_in_flight(scripted: Scripted) -> None:
    """The last row of an id wins, however busy the server is."""
    flying: set[str] = set()
    lock = threading.Lock()

    def watch(body: bytes) -> Answer:
        with lock:
            assert not flying & set(names(body))
            flying.update(names(body))
        answer = accept(body)
        with lock:
            flying.difference_update(names(body))
        return answer

    scripted.answer = watch
    entries = [item(n % 3, n) for n in range(30)]
    written = list(BulkWriter(scripted.cluster, IngestRequest("i", {}, max_body_bytes=70)).write(entries))
    assert indexed(written) == 30
    sent = [json.loads(line)["n"] for body in scripted.bodies for line in body.splitlines()[1::2]]
    assert [n for n in sent if n % 3 == 0] == list(range(0, 30, 3))


def test_entries_that_are_no_documents_are_passed_along(scripted: Scripted) -> None:
    """They are returned with the verdicts of the documents around them."""
    entries = [Blank("a"), item(0), Blank("b"), item(1), Blank("c")]
    written = list(BulkWriter(scripted.cluster, IngestRequest("i", {}, max_body_bytes=1)).write(entries))
    assert [[entry.name for entry in body.body.other_entries] for body in written] == [["a", "b"], ["c"]]
    assert indexed(written) == 2


def test_an_index_that_is_closed_to_us_ends_the_writing(scripted: Scripted) -> None:
    """Earlier verdicts are yielded first; no document is refused."""
    closed = {"status": 403, "error": {"type": "security_exception", "reason": "no permissions for [x]"}}
    scripted.answers = [
        (200, {"errors": False, "items": [{"index": {"status": 201}}]}),
        (200, {"errors": True, "items": [{"index": closed}]}),
    ]
    verdicts: Iterator[WrittenBody] = BulkWriter(
        scripted.cluster, IngestRequest("i", {}, max_body_bytes=1, max_in_flight=1)
    ).write(map(item, range(3)))
    assert next(verdicts).indexed == 1
    with pytest.raises(ConfigError, match=r"index i refuses writes \(403\): .*no permissions for \[x\]"):
        next(verdicts)


def test_an_answer_that_leaves_out_a_document_is_no_verdict(scripted: Scripted) -> None:
    """The whole body is retried, as the missing document is unknown."""
    scripted.answers = [(200, {"errors": errors, "items": [{"index": {"status": 201}}]}) for errors in (False, True)]
    written = list(BulkWriter(scripted.cluster, REQUEST, sleep=lambda _: None).write(map(item, range(2))))
    assert [names(body) for body in scripted.bodies] == [["d0", "d1"]] * 3
    assert indexed(written) == 2


def test_an_answer_that_always_leaves_one_out_ends_the_writing(scripted: Scripted) -> None:
    """The error has the number of missing verdicts."""
    scripted.answer = lambda _: (200, {"errors": False, "items": []})
    with pytest.raises(RetriableError, match="index i: 2 documents were sent, 0 returned"):
        list(BulkWriter(scripted.cluster, REQUEST, retry_window_s=0.0).write(map(item, range(2))))


@pytest.mark.parametrize("errors", [False, True])
def test_a_document_that_an_ingest_pipeline_drops_is_filtered(scripted: Scripted, *, errors: bool) -> None:
    """A dropped document is `noop` without a sequence number; an update that changes nothing has one."""
    answers = [
        {"index": {"status": 201, "result": "created"}},
        {"index": {"status": 200, "result": "noop"}},
        {"update": {"status": 200, "result": "noop", "_seq_no": 0}},
        {"update": {"status": 200, "result": "noop"}},
    ]
    scripted.answers = [(200, {"errors": errors, "items": answers})]
    items = [item(at, op_type="index" if at < 2 else "upsert") for at in range(4)]
    (written,) = BulkWriter(scripted.cluster, REQUEST).write(items)
    assert (written.indexed, written.unchanged, len(written.filtered), written.refused) == (1, 1, 2, [])


@pytest.mark.parametrize("op_type", ["index", "create", "upsert"])
def test_an_ingest_pipeline_drops_documents(lab: Lab, index: str, *, op_type: OpType) -> None:
    """The node drops what its pipeline drops, and an equal update stays unchanged."""
    cluster = lab.cluster()
    drop = {"processors": [{"drop": {"if": "ctx.n == 1"}}]}
    lab.node("PUT", f"_ingest/pipeline/{index}", drop)
    # The pipeline of a bulk request is not applied to an update; that of the index is.
    cluster.create_index(index, {"settings": {"index.default_pipeline": index}})
    request = IngestRequest(index, {})
    items = [item(at, at % 2, op_type=op_type) for at in range(4)]
    (written,) = BulkWriter(cluster, request).write(items)
    assert (written.indexed, written.unchanged, len(written.filtered)) == (2, 0, 2)
    (again,) = BulkWriter(cluster, request).write(items)
    assert (again.indexed, again.unchanged, len(again.filtered)) == ((2, 0, 2) if op_type == "index" else (0, 2, 2))


HTML = b"<html>502 Bad Gateway</html>"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ((404, HTML), "not found .404.: <html>502"),
        ((404, {"error": "no route"}), "no route"),
        ((200, HTML), "<html>502"),
        ((200, {"message": "welcome"}), "missing required field `errors`.*welcome"),
        ((200, {"errors": False}), "missing required field `items`"),
        ((200, {"errors": True, "items": ["x", "y"]}), "Expected `object`"),
        ((200, {"errors": True, "items": [{"index": {}}, {"index": {"status": 201}}]}), "`status`"),
        ((200, [1, 2]), "Expected `object`, got `array`"),
    ],
)
def test_an_answer_that_is_not_the_index_s_is_tried_again(scripted: Scripted, answer: Answer, shown: str) -> None:
    """A proxy's page or other JSON is no verdict and no reason to delete an index; the error shows what was seen."""
    scripted.answers = [answer]
    (written,) = BulkWriter(scripted.cluster, REQUEST, sleep=lambda _: None).write(map(item, range(2)))
    assert (written.indexed, len(scripted.bodies)) == (2, 2)
    scripted.answers, scripted.answer = [], lambda _: answer
    with pytest.raises(RetriableError, match=shown) as caught:
        list(BulkWriter(scripted.cluster, REQUEST, retry_window_s=0.0).write(map(item, range(2))))
    assert "delete" not in str(caught.value)


def test_an_index_that_is_gone_is_named(scripted: Scripted) -> None:
    """Only OpenSearch's own answer says so."""
    gone = {"error": {"type": "index_not_found_exception", "reason": "no such index [i]"}, "status": 404}
    scripted.answers = [(404, gone)]
    with pytest.raises(ConfigError, match="index i was deleted while it was being written"):
        list(BulkWriter(scripted.cluster, REQUEST).write([item(0)]))


@pytest.mark.parametrize(("status", "error"), [(429, RetriableError), (403, ConfigError)])
def test_a_full_disk_of_the_cluster_is_named(scripted: Scripted, status: int, error: type[Exception]) -> None:
    """OpenSearch blocks the index at the flood stage; it is not just busy."""
    reason = "index [i] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]"
    blocked = {"status": status, "error": {"type": "cluster_block_exception", "reason": reason}}
    scripted.answer = lambda _: (200, {"errors": True, "items": [{"index": blocked}]})
    with pytest.raises(error, match=r"flood-stage watermark.*cluster is full \(flood stage\): free space"):
        list(BulkWriter(scripted.cluster, REQUEST, retry_window_s=0.0).write([item(0)]))


def test_the_limit_grows_while_throughput_does() -> None:
    """A higher limit is kept if it raises the throughput, and reverted if not."""
    limit = ConcurrencyLimit(maximum=8)
    now = 0.0
    limits = []
    for _ in range(400):
        now += 1.0 / min(limit.limit, 4)  # a server that is four wide
        limit.on_done(100, now)
        limits.append(limit.limit)
    assert 4 in limits
    assert max(limits) == 5
    assert limits.count(4) > 10 * limits.count(5) / SAMPLES_BEFORE_RETRY


def test_the_limit_is_halved_when_the_index_is_busy() -> None:
    """The limit is halved, and is at least one."""
    limit = ConcurrencyLimit(maximum=8)
    limit.limit = 8
    limit.on_busy()
    assert limit.limit == 4
    for _ in range(5):
        limit.on_busy()
    assert limit.limit == 1
