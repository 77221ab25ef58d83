"""An index as the source, on a node: vectors in place and in another index, while others write and search."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import pytest

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.opensearch.cluster import Cluster, field_type
from opensearch_batch.core.runs.index_objects import IndexObjects, IndexSource
from opensearch_batch.core.runs.index_source import SourceIndex
from opensearch_batch.core.runs.run_account import ShardRunCounts
from opensearch_batch.core.sharding.listing import INDEX_SCHEME, Listing, index_uri, list_source
from opensearch_batch.core.storage.by_uri import Scheme, Stores
from opensearch_batch.core.storage.objects import Objects
from tests.core.index_runs import PREDICTIONS
from tests.core.memory_indexes import MemoryIndexes
from tests.core.whole_runs import INPUTS, Pipeline, Run, vector_of
from tests.end_to_end.own_pipelines import INDEX_BODY, OwnPipelines
from tests.lab import Lab
from tests.stored import present

MANY = 20_000
VECTOR = {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene", "space_type": "l2"}}
PROPERTIES = {"text": {"type": "text"}, "price": {"type": "long"}, "at": {"type": "date"}, "v": VECTOR}


def create(cluster: Cluster, index: str, *, shards: int = 1) -> None:
    """Create an index without documents."""
    settings = {"index": {"knn": True, "number_of_shards": shards, "number_of_replicas": 0}}
    cluster.create_index(index, {"settings": settings, "mappings": {"properties": PROPERTIES}})


def bulk(cluster: Cluster, index: str, *actions: Mapping[str, Any]) -> list[Any]:
    """Send actions, with the member `doc` as their second line; return the results."""
    lines = []
    for action in actions:
        lines += [
            {name: value for name, value in action.items() if name != "doc"},
            *([action["doc"]] if "doc" in action else []),
        ]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    items = cluster.call("POST", f"/{index}/_bulk", body, params={"refresh": "true"}, timeout_s=120.0)["items"]
    return [result for item in items for result in item.values()]


class NodePipeline(Pipeline):
    """A pipeline that writes in place into an index of a node; its service is in memory."""

    def __init__(self, cluster: Cluster, index: str, **options: Any) -> None:
        limits = {"max_records": 10_000, "max_bytes": 100_000_000}
        super().__init__("openai", source_format="jsonl", **{**limits, **options})
        self.node = cluster
        self.cluster = cluster  # type: ignore[assignment] # answers what its base answers
        self.index, self.in_place, self.source_prefix = index, True, index_uri("c", index)
        self.request = IngestRequest(index, dict(PREDICTIONS), on_unmatched="dead_letter", routing="$._routing")

    @contextmanager
    def opened(self, source: str) -> Iterator[tuple[Objects, Listing]]:
        """Open the source."""
        settings = SourceIndex("c", self.index, in_place=True)
        with settings.objects(self.node, source, INPUTS) as blocks:
            store = Stores({"s3": Scheme(lambda: self.objects), INDEX_SCHEME: Scheme(lambda: blocks)})
            yield store, list_source(store, source)


class Searches:
    """Searches an index without a pause until it is left; each answer counts its hits."""

    def __init__(self, cluster: Cluster, index: str) -> None:
        self.totals: list[int] = []
        self.errors: list[Exception] = []
        self._cluster, self._index = cluster, index
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._search)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _search(self) -> None:
        body = {"query": {"match": {"text": "passage"}}, "size": 1, "track_total_hits": True}
        while not self._ended.wait(0.05):
            try:
                answer = self._cluster.call("POST", f"/{self._index}/_search", body)
                self.totals.append(answer["hits"]["total"]["value"])
            except Exception as error:  # noqa: BLE001 - every error fails the test
                self.errors.append(error)


def counts(run: Run) -> dict[str, int]:
    """Return the counts of a run that tell what was paid and written."""
    account = present(run.account).counts
    names = ("read", "indexed", "unchanged", "waiting", "paid", "removed", "dead_letters")
    return {name: getattr(account, name) for name in names if getattr(account, name)}


def with_vector(cluster: Cluster, index: str) -> int:
    """Return how many documents of an index have a vector."""
    cluster.refresh(index)
    return int(cluster.call("POST", f"/{index}/_count", {"query": {"exists": {"field": "v"}}})["count"])


@pytest.mark.slow
@pytest.mark.each_version
def test_an_index_of_20000_documents_gets_vectors_in_place_while_it_is_searched(lab: Lab, index: str) -> None:
    """All are paid for and written once; then 10 updates and 5 deletions cost 10 predictions and 10 writes."""
    cluster = lab.cluster()
    create(cluster, index, shards=2)
    for first in range(0, MANY, 5_000):
        documents = [
            {"index": {"_id": f"d{number}"}, "doc": {"text": f"passage {number}", "price": number}}
            for number in range(first, first + 5_000)
        ]
        bulk(cluster, index, *documents)
    pipeline = NodePipeline(cluster, index)
    with Searches(cluster, index) as searches:
        assert counts(pipeline.run()) == {"read": MANY, "indexed": MANY, "paid": MANY}
        assert with_vector(cluster, index) == MANY
        updates = [{"update": {"_id": f"d{n}"}, "doc": {"doc": {"text": f"passage new {n}"}}} for n in range(10)]
        bulk(cluster, index, *updates, *({"delete": {"_id": f"d{number}"}} for number in range(10, 15)))
        run = pipeline.run()
        assert counts(run) == {
            "read": MANY - 5, "indexed": 10, "unchanged": MANY - 15, "paid": 10, "removed": 5,
        }  # fmt: skip
        assert with_vector(cluster, index) == MANY - 5
    assert searches.errors == []
    assert searches.totals
    assert min(searches.totals) == MANY - 5
    assert sum(pipeline.service.paid.values()) == MANY + 10
    found = cluster.call("GET", f"/{index}/_doc/d3")["_source"]
    assert found == {"text": "passage new 3", "price": 3, "v": vector_of("passage new 3")}


def test_what_others_write_meanwhile_is_neither_lost_nor_overwritten(lab: Lab, index: str) -> None:
    """Texts that changed during the run wait for the next one; other fields keep what others wrote."""
    cluster = lab.cluster()
    create(cluster, index, shards=3)
    routed = {number: {"routing": f"r{number}"} if number % 3 == 0 else {} for number in range(60)}
    bulk(
        cluster, index,
        *({"index": {"_id": f"d{n}", **routed[n]}, "doc": {"text": f"t{n}", "price": n}} for n in range(60)),
    )  # fmt: skip
    pipeline = NodePipeline(cluster, index)
    run = pipeline.new_run()
    run.stages[0]()
    run.stages.pop(0)
    bulk(
        cluster, index,
        {"update": {"_id": "d0", **routed[0]}, "doc": {"doc": {"text": "other"}}},
        {"update": {"_id": "d1"}, "doc": {"doc": {"price": 1000}}},
        {"delete": {"_id": "d2"}},
        {"index": {"_id": "new"}, "doc": {"text": "new"}},
    )  # fmt: skip
    run.finish()
    assert counts(run) == {"read": 60, "indexed": 58, "waiting": 2, "paid": 60}
    assert cluster.call("GET", f"/{index}/_doc/d0", params={"routing": "r0"})["_source"] == {
        "text": "other",
        "price": 0,
    }
    found = cluster.call("GET", f"/{index}/_doc/d1")["_source"]
    assert found == {"text": "t1", "price": 1000, "v": vector_of("t1")}
    assert counts(pipeline.run()) == {"read": 60, "indexed": 2, "unchanged": 58, "paid": 2, "removed": 1}
    assert with_vector(cluster, index) == 60
    # Only the shards in which something was written are read.
    assert counts(pipeline.run()).keys() == {"read", "unchanged"}
    assert pipeline.run().account is None


def test_the_node_reads_and_guards_likewise(lab: Lab, index: str) -> None:
    """The index in memory, with which the other tests run, has the blocks and the verdicts of a node."""
    cluster, memory = lab.cluster(), MemoryIndexes()
    create(cluster, index, shards=3)
    twin = memory.create(index, shards=3, at={"type": "date"}, v=VECTOR)
    for number in range(30):
        members: dict[str, Any] = {"text": f"t{number}", "n": 1.50, "at": 1_700_000_000_000 + number}
        if number % 7 == 0:
            del members["at"]
        if number % 3:
            members["v"] = [1.0, 2.0]
        routing = f"r{number}" if number % 2 else None
        bulk(
            cluster,
            index,
            {"index": {"_id": f"d{number}", **({"routing": routing} if routing else {})}, "doc": members},
        )
        twin.put(f"d{number}", members, routing)
    query = {"range": {"at": {"gte": 1_700_000_000_005, "format": "epoch_millis"}}}
    for source in (
        IndexSource(index),
        IndexSource(index, fields=("text",), predictions=("v",)),
        IndexSource(index, predictions=("v",), version_field="at"),
        IndexSource(index, query),
    ):
        assert lines(cluster, source) == lines(memory, source)
    assert field_type(present(cluster.index(index)), "at") == "date"

    def guard(name: str, seq_no: int) -> dict[str, Any]:
        return {"_id": name, "if_seq_no": seq_no, "if_primary_term": 1}

    bulk(cluster, index, {"index": {"_id": "one"}, "doc": {"text": "one"}})
    seq_no = cluster.call("GET", f"/{index}/_doc/one")["_seq_no"]
    results = bulk(
        cluster, index,
        {"update": guard("one", seq_no), "doc": {"doc": {"v": [1.0, 2.0]}}},
        {"update": guard("one", seq_no), "doc": {"doc": {"v": [2.0, 2.0]}}},
        {"update": guard("none", 0), "doc": {"doc": {"v": [2.0, 2.0]}}},
    )  # fmt: skip
    again = cluster.call("GET", f"/{index}/_doc/one")["_seq_no"]
    results += bulk(cluster, index, {"update": guard("one", again), "doc": {"doc": {"v": [1.0, 2.0]}}})
    twin.put("one", {"text": "one"})
    position = twin.shards[twin.shard_of("one", None)]["one"].seq_no
    likewise = [
        twin.write("update", guard("one", position), {"doc": {"v": [1.0, 2.0]}}),
        twin.write("update", guard("one", position), {"doc": {"v": [2.0, 2.0]}}),
        twin.write("update", guard("none", 0), {"doc": {"v": [2.0, 2.0]}}),
    ]
    position = twin.shards[twin.shard_of("one", None)]["one"].seq_no
    likewise.append(twin.write("update", guard("one", position), {"doc": {"v": [1.0, 2.0]}}))
    assert [verdict(each) for each in results] == [verdict(each) for each in likewise]


def verdict(result: Mapping[str, Any]) -> tuple[int, str]:
    """Return the status of an item, and its result or the type of its error."""
    return result["status"], result.get("result") or result["error"]["type"]


def lines(cluster: Cluster, source: IndexSource) -> list[str]:
    """Return the documents of all blocks, sorted; the members of each in one order."""
    with IndexObjects(cluster, source, index_uri("c", source.index)) as blocks:
        listed = list(blocks.list(index_uri("c", source.index)))
        content = [present(blocks.read(item.uri)).content for item in listed]
    return sorted(json.dumps(json.loads(line), sort_keys=True) for block in content for line in block.splitlines())


def test_a_point_in_time_shows_what_was_listed_until_it_expires(lab: Lab, index: str) -> None:
    """Later writes are not read, numbers keep their digits, and an expired point in time is no removed document."""
    cluster = lab.cluster()
    # An index with k-NN derives the source in 3.x, and rounds its numbers.
    cluster.create_index(index, {"mappings": {"properties": {"text": {"type": "text"}}}})
    document = b'{"index":{"_id":"a"}}\n{ "text": "one",\t"n": 1.10, "big": 12345678901234567890.123 }\n'
    cluster.call("POST", f"/{index}/_bulk", document, params={"refresh": "true"})
    with IndexObjects(cluster, IndexSource(index), index_uri("c", index)) as blocks:
        (item,) = blocks.list(index_uri("c", index))
        bulk(cluster, index, {"index": {"_id": "a"}, "doc": {"text": "two"}}, {"index": {"_id": "b"}, "doc": {}})
        content = present(blocks.read(item.uri)).content
        assert content == b'{"_id":"a", "text": "one",\t"n": 1.10, "big": 12345678901234567890.123 }\n'
        cluster.call("DELETE", "/_search/point_in_time/_all")
        with pytest.raises(RetriableError, match="expired"):
            blocks.read(item.uri)


@pytest.mark.slow
def test_a_pipeline_writes_vectors_into_the_index_that_it_reads(lab: Lab, index: str) -> None:
    """In Airflow: the first run writes all, the second one nothing; a copy of whole documents follows removals."""
    own = OwnPipelines(lab)
    body = {"settings": INDEX_BODY["settings"], "mappings": INDEX_BODY["mappings"]}
    lab.cluster().create_index(index, body)
    bulk(lab.cluster(), index, *({"index": {"_id": f"d{n}"}, "doc": {"text": f"t {n}", "price": n}} for n in range(12)))
    name = own.new_name()
    ingest: dict[str, Any] = {"index": index, "index_body": None, "field_map": {"text": None}}
    own.write(name, own.spec(name, source={"uri": None, "index": index}, id=None, ingest=ingest))
    own.airflow.wait_for_dag(name)
    run = own.run(name)
    assert run.wait() == "success"
    assert run.counts() == counted(read=12, indexed=12, paid=12, shards=1, objects=1, opened=1)
    found = lab.documents(index)["d3"]
    assert (found["text"], found["price"], len(found["embedding"])) == ("t 3", 3, 384)
    refused = own.run(name, {"index": f"{index}-other"})
    assert refused.wait() == "failed"
    assert "writes into the documents" in refused.log("prepare")

    copy = own.new_name()
    target = copy.replace("_", "-")
    source = {"uri": None, "index": index, "on_removed": "delete", "query": {"range": {"price": {"lt": 10}}}}
    ingest = {"index": target, "ingest_fields": ["$.*"], "field_map": {"text": None}}
    own.write(copy, own.spec(copy, source=source, id=None, ingest=ingest))
    own.airflow.wait_for_dag(copy)
    assert own.run(copy).wait() == "success"
    assert own.count(target) == 10
    assert lab.documents(target)["d3"]["price"] == 3
    bulk(lab.cluster(), index, {"delete": {"_id": "d3"}})
    run = own.run(copy)
    assert run.wait() == "success"
    assert run.counts()["deleted"] == 1
    assert own.count(target) == 9


def counted(**counts: int) -> dict[str, int]:
    """Return a run's counts; those not given are zero."""
    return dict.fromkeys(ShardRunCounts.__struct_fields__, 0) | counts
