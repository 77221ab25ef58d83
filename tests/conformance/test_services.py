"""Every service and every outcome, through a real ML Commons: what happens to the money and to the records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from opensearch_batch.core.errors import BatchError, FatalError, OutputUnusable, RetriableError, Throttled
from opensearch_batch.core.jobs.submission import INTENT_GRACE_S
from opensearch_batch.core.types.job import ResubmitRequest
from tests.conformance.shard_flow import ShardFlow, as_floats
from tests.lab import Lab
from tests.stored import present
from tests.waiting import WAIT_S

RECORDS = 6
FULL, OTHERS = "openai", ("sagemaker", "bedrock", "cohere")
slow = pytest.mark.slow
# One service goes through all outcomes in every run of the tests, the others through two.
EVERY = [FULL, *(pytest.param(name, marks=slow) for name in OTHERS)]
ALWAYS = [FULL, *OTHERS]
Start = Callable[..., ShardFlow]


@pytest.fixture
def start(lab: Lab, bucket: str, index: str) -> Iterator[Start]:
    """Prepare a shard for a service; Bedrock accepts small jobs in these tests."""
    quotas = f"{lab.stack.addresses.ai_services}/quotas"
    lab.http.put(quotas, json={"bedrock_min_records": 1}, timeout=WAIT_S).raise_for_status()
    flows: list[ShardFlow] = []

    def lay_out(name: str, **more: Any) -> ShardFlow:
        flows.append(ShardFlow(lab, name, bucket, index, **more))
        return flows[-1]

    yield lay_out
    for flow in flows:
        flow.close()
    lab.no_faults()
    lab.http.put(quotas, json={}, timeout=WAIT_S).raise_for_status()


def near(vector: tuple[float, ...]) -> Any:
    """A model's vector of a text differs in its last bit with the texts it is computed beside."""
    return pytest.approx(vector, abs=1e-6)


@pytest.fixture
def bucket(lab: Lab) -> str:
    """A bucket of the stack's own store."""
    return lab.new_bucket()


@pytest.mark.parametrize("name", ALWAYS)
def test_whole(start: Start, name: str) -> None:
    """One job, every record a document with its true vector; again, nothing is paid and nothing written."""
    flow = start(name)
    report = flow.run()
    assert (report.counts.indexed, report.counts.dead_letters, flow.paid()) == (RECORDS, 0, 1)
    documents = flow.documents()
    assert set(documents) == set(flow.ids)
    for key in flow.ids:
        assert documents[key]["text"] == f"text {key}"
        assert as_floats(documents[key]["v"]) == near(flow.lab.vector(f"text {key}"))
    again = flow.run()
    assert (again.counts.indexed, again.counts.unchanged, flow.paid()) == (0, RECORDS, 1)


@pytest.mark.parametrize("name", ALWAYS)
def test_partial(start: Start, name: str) -> None:
    """What failed is asked again, and only that; Bedrock takes no job that small, so there it is a dead letter."""
    flow = start(name)
    flow.fault("partial", every=2)
    report = flow.run()
    if name == "bedrock":
        assert (report.counts.indexed, report.counts.dead_letters, flow.paid()) == (3, 3, 1)
        return
    assert (report.counts.indexed, report.counts.dead_letters, flow.paid()) == (RECORDS, 0, 2)
    assert set(flow.documents()) == set(flow.ids)


@pytest.mark.parametrize("name", EVERY)
def test_partial_to_the_end(start: Start, name: str) -> None:
    """After two rounds the rest are dead letters that name document and reason."""
    flow = start(name)
    flow.fault("partial", every=1, times=3)
    shard = flow.prepare()
    account = flow.repair(shard, flow.wait(shard, flow.submit(shard)[1]))
    rounds = 1 if name == "bedrock" else 3
    assert (len(account.job_outputs), account.failed, flow.paid()) == (rounds, RECORDS, rounds)
    flow.cluster.create_index(flow.index, {"mappings": {"properties": {"v": {"type": "float"}}}})
    report = flow.ingest(shard, account)
    letters = flow.letters(report)
    assert sorted(letters) == [f"s3://{flow.bucket}/in/a.jsonl:{line}" for line in range(1, RECORDS + 1)]
    assert all(letters.values())


@pytest.mark.parametrize("name", ["openai", pytest.param("cohere", marks=slow)])
def test_a_repair_that_fails(start: Start, name: str) -> None:
    """What the first job predicted is indexed, the rest are dead letters; a clear of repair pays once, not for ever."""
    flow = start(name)
    flow.fault("partial", every=2)
    shard = flow.prepare()
    record = flow.wait(shard, flow.submit(shard)[1])
    flow.fault("fail")
    failing = flow.repair(shard, record)
    left = failing.failed
    assert 0 < left < RECORDS
    assert (failing.reason.startswith("repair job"), flow.paid()) == (True, 2)
    report = flow.ingest(shard, flow.repair(shard, record))
    assert (report.counts.indexed, report.counts.dead_letters, flow.paid()) == (RECORDS - left, left, 2)
    flow.fault("fail")
    cleared = ResubmitRequest(clear="run 3")
    assert [flow.repair(shard, record, cleared).failed for _ in range(2)] == [left, left]
    assert flow.paid() == 3


@pytest.mark.parametrize("name", EVERY)
def test_failed(start: Start, name: str) -> None:
    """The job's end says why; nobody pays again until a person asks, and then once."""
    flow = start(name)
    flow.fault("fail")
    shard = flow.prepare()
    record = flow.wait(shard, flow.submit(shard)[1])
    assert record.end is not None
    assert record.end.state == "FAILED"
    with pytest.raises(FatalError, match=r"ended FAILED.*clear batch_predict to submit"):
        flow.submit(shard)
    assert flow.paid() == 1
    cleared = flow.wait(shard, flow.submit(shard, ResubmitRequest(clear="run 3"))[1])
    report = flow.ingest(shard, flow.repair(shard, cleared))
    assert (report.counts.indexed, flow.paid()) == (RECORDS, 2)


@pytest.mark.parametrize("name", ["openai", pytest.param("bedrock", marks=slow)])
def test_expired(start: Start, name: str) -> None:
    """What OpenAI did in time counts and the rest is asked again; at Bedrock nothing is left."""
    flow = start(name)
    flow.fault("expire")
    shard = flow.prepare()
    record = flow.wait(shard, flow.submit(shard)[1])
    assert record.end is not None
    if record.end.state == "EXPIRED":
        with pytest.raises(FatalError, match="ended EXPIRED"):
            flow.submit(shard)
        return
    report = flow.ingest(shard, flow.repair(shard, record))
    assert (name, report.counts.indexed, flow.paid()) == ("openai", RECORDS, 2)


@pytest.mark.parametrize("name", EVERY)
def test_cancelled(start: Start, name: str) -> None:
    """Through ML Commons; the end is the service's own."""
    flow = start(name)
    flow.fault("delay", seconds=3600)
    shard = flow.prepare()
    _, record = flow.submit(shard)
    flow.look(record)
    flow.ml.cancel(str(record.ml_task_id))
    assert present(flow.wait(shard, record).end).state == "CANCELLED"


@pytest.mark.parametrize("name", EVERY)
def test_throttled(start: Start, name: str) -> None:
    """Not now is no failure: the next attempt submits, and pays once."""
    flow = start(name)
    flow.fault("throttle")
    shard = flow.prepare()
    with pytest.raises(Throttled, match="_batch_predict: "):
        flow.submit(shard)
    assert flow.paid() == 0
    decision, _ = flow.submit(shard)
    assert (decision, flow.paid()) == ("submit", 1)


@pytest.mark.parametrize("name", EVERY)
def test_orphaned(start: Start, name: str) -> None:
    """Accepted, but nobody heard of it: the job is found at the service, waited for there, and paid once."""
    flow = start(name)
    flow.fault("lost_response")
    shard = flow.prepare()
    with pytest.raises(RetriableError, match="_batch_predict: "):
        flow.submit(shard)
    decision, record = flow.submit(shard, later_s=INTENT_GRACE_S)
    assert (decision, record.ml_task_id, flow.paid()) == ("recover", None, 1)
    report = flow.ingest(shard, flow.repair(shard, flow.wait(shard, record)))
    assert (report.counts.indexed, flow.paid()) == (RECORDS, 1)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", ["reorder", "duplicate"])
def test_rows_in_any_order_and_twice(start: Start, name: str, kind: str) -> None:
    """Each finds its record; where rows are counted against records, twice is too many, and the job unusable."""
    flow = start(name)
    flow.fault(kind)
    if (name, kind) == ("sagemaker", "duplicate"):
        with pytest.raises(OutputUnusable, match="9 rows for 6 records, and no row names its record"):
            flow.run()
        return
    report = flow.run()
    assert (report.counts.dead_letters, flow.paid()) == (0, 1)
    documents = flow.documents()
    assert set(documents) == set(flow.ids)
    for key in flow.ids:
        assert as_floats(documents[key]["v"]) == near(flow.lab.vector(f"text {key}"))


@pytest.mark.parametrize("name", EVERY)
def test_rows_that_are_missing(start: Start, name: str) -> None:
    """Are asked again where rows name their records."""
    flow = start(name)
    flow.fault("missing", every=3)
    if name == "sagemaker":
        with pytest.raises(OutputUnusable, match="4 rows for 6 records"):
            flow.run()
        return
    report = flow.run()
    lost = 2 if name == "bedrock" else 0
    assert (report.counts.indexed, report.counts.dead_letters) == (RECORDS - lost, lost)
    assert flow.paid() == (1 if name == "bedrock" else 2)


@pytest.mark.parametrize("name", EVERY)
def test_truncated(start: Start, name: str) -> None:
    """A row that is cut off is a dead letter, and its record is asked again; a cut Avro file is an error."""
    flow = start(name)
    flow.fault("truncate")
    if name == "cohere":
        with pytest.raises(BatchError, match="damaged or truncated"):
            flow.run()
        return
    report = flow.run()
    if name == "bedrock":
        assert (report.counts.indexed, flow.paid()) == (RECORDS - 1, 1)
        return
    assert (report.counts.indexed, flow.paid()) == (RECORDS, 2)


@pytest.mark.parametrize("name", EVERY)
def test_wrong_dimension(start: Start, name: str) -> None:
    """Vectors the index does not take are dead letters, named before they are sent; the rest is indexed."""
    flow = start(name)
    flow.fault("wrong_dimension", every=2)
    report = flow.run()
    assert (report.counts.indexed, report.counts.dead_letters, flow.paid()) == (3, 3, 1)
    assert set(flow.letters(report).values()) == {"v has 383 values; the index expects 384"}


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sparse weights": ("sagemaker", {"connector": {"ModelName": "sparse-minilm"}}),
    "text at OpenAI": ("openai", {"connector": {"endpoint": "/v1/chat/completions"}}),
    "text at Bedrock": ("bedrock", {"connector": {"modelId": "anthropic.claude-3-haiku-20240307-v1:0"}}),
    "two vectors at OpenAI": ("openai", {"inputs": ["$.title", "$.text"]}),
    "two vectors at SageMaker": ("sagemaker", {"inputs": ["$.title", "$.text"]}),
    "two vectors at Bedrock": (
        "bedrock",
        {"connector": {"modelId": "cohere.embed-english-v3"}, "inputs": ["$.title", "$.text"]},
    ),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_prediction_is_any_json(start: Start, kind: str) -> None:
    """Dense, sparse or text, one or several a record: the field map moves what the service gave."""
    name, more = KINDS[kind]
    several = len(more.get("inputs", [])) > 1
    fields = {"first": "prediction[0]", "second": "prediction[1]"} if several else {"p": "prediction"}
    plain = {"mappings": {"dynamic": False}}
    flow = start(name, field_map={"_id": "$.id", **fields}, body=plain, **more)
    if "ModelName" in more.get("connector", {}):
        flow.lab.sagemaker_model(more["connector"]["ModelName"])
    report = flow.run()
    assert (report.counts.indexed, report.counts.dead_letters) == (RECORDS, 0)
    for key, document in flow.documents().items():
        if several:
            assert as_floats(document["first"]) == near(flow.lab.vector(f"title {key}"))
            assert as_floats(document["second"]) == near(flow.lab.vector(f"text {key}"))
        elif kind == "sparse weights":
            assert document["p"]
            assert all(isinstance(weight, float) for weight in document["p"].values())
        else:
            assert document["p"] == f"TEXT {key.upper()}"
