"""Every service and every outcome, through a real ML Commons: what happens to the money and to the records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from opensearch_batch.core.errors import BatchError, FatalError, OutputUnusable, RetriableError, Throttled
from opensearch_batch.core.jobs.submission import INTENT_GRACE_S
from opensearch_batch.core.types.job import ResubmitRequest
from tests.conformance.shard_flow import ShardFlow, as_floats
from tests.lab import Lab
from tests.stored import present

FULL, OTHERS = "openai", ("sagemaker", "bedrock", "cohere")
slow = pytest.mark.slow
# One service goes through all outcomes in every run of the tests, the others through two.
EVERY = [FULL, *(pytest.param(name, marks=slow) for name in OTHERS)]
ALWAYS = [FULL, *OTHERS]
Start = Callable[..., ShardFlow]


@pytest.fixture
def start(lab: Lab, bucket: str, index: str) -> Iterator[Start]:
    """Begin the runs of a pipeline with a service."""
    flows: list[ShardFlow] = []

    def lay_out(name: str, **more: Any) -> ShardFlow:
        flows.append(ShardFlow(lab, name, bucket, index, **more))
        return flows[-1]

    yield lay_out
    for flow in flows:
        flow.close()
    lab.no_faults()


def near(vector: tuple[float, ...]) -> Any:
    """A model's vector of a text differs in its last bit with the texts it is computed beside."""
    return pytest.approx(vector, abs=1e-6)


@pytest.fixture
def bucket(lab: Lab) -> str:
    """A bucket of the stack's own store."""
    return lab.new_bucket()


def has_true_documents(flow: ShardFlow) -> None:
    """Check that each record has its document, with the model's vector of its text."""
    documents = flow.documents()
    assert set(documents) == set(flow.ids)
    for key, vector in zip(flow.ids, flow.lab.vectors([f"text {key}" for key in flow.ids]), strict=True):
        assert documents[key]["text"] == f"text {key}"
        assert as_floats(documents[key]["v"]) == near(vector)


@pytest.mark.parametrize("name", ALWAYS)
def test_whole(start: Start, name: str) -> None:
    """One job, every record a document with its true vector; again, nothing is read, paid or written."""
    flow = start(name)
    account = flow.run()
    assert (account.counts.indexed, account.counts.dead_letters, flow.paid()) == (len(flow.ids), 0, 1)
    has_true_documents(flow)
    assert flow.prepare_run() == []
    assert flow.paid() == 1


@pytest.mark.parametrize("name", ALWAYS)
def test_predictions_are_stored(start: Start, name: str) -> None:
    """A rebuild writes the same documents again, from the prediction store alone."""
    flow = start(name)
    flow.run()
    documents, paid = flow.documents(), flow.paid()
    flow.lab.node("POST", f"{flow.index}/_delete_by_query?refresh=true", {"query": {"match_all": {}}})
    (shard,) = flow.prepare_run(rebuild=True)
    assert shard.job == ""
    assert flow.finish(shard).counts.indexed == len(flow.ids)
    assert (flow.documents(), flow.paid()) == (documents, paid)


def jobs_with_repair(name: str) -> int:
    """Return how many jobs a run has whose first job leaves few records without a prediction."""
    return 1 if name == "bedrock" else 2


@pytest.mark.parametrize("name", ALWAYS)
def test_partial(start: Start, name: str) -> None:
    """What failed is asked again, and only that; Bedrock takes no job that small, so there it is in real time."""
    flow = start(name)
    flow.fault("partial", every=2)
    before, counts = flow.requests(), flow.run().counts
    assert (counts.indexed, counts.dead_letters, flow.paid()) == (len(flow.ids), 0, jobs_with_repair(name))
    if name == "bedrock":
        assert flow.requests() - before == len(flow.ids) // 2
    has_true_documents(flow)


@pytest.mark.parametrize("name", EVERY)
def test_partial_to_the_end(start: Start, name: str) -> None:
    """After one repair the rest are dead letters that name line and reason."""
    flow = start(name)
    flow.fault("partial", every=1, times=2)
    account = flow.run()
    assert (account.counts.indexed, account.counts.dead_letters, flow.paid()) == (0, len(flow.ids), 2)
    letters = flow.letters(account)
    assert sorted(letters) == list(range(1, len(flow.ids) + 1))
    assert all(letters.values())


@pytest.mark.parametrize("name", EVERY)
def test_too_many_for_a_repair(start: Start, name: str) -> None:
    """The run fails with the service's reason before another job; the next run pays for what failed, and only that."""
    flow = start(name)
    flow.fault("partial", every=2)
    shard = flow.prepare()
    flow.wait(shard, flow.submit(shard)[1])
    failed = present(flow.ingest(shard)).verdicts
    (reason,) = failed.reasons
    assert failed.unanswered == len(flow.ids) // 2
    with pytest.raises(FatalError, match=rf"{failed.unanswered} of {len(flow.ids)} .*{re.escape(reason[:40])}"):
        flow.repair(at_most="0%")
    assert flow.paid() == 1
    shards = flow.prepare_run()
    assert sum(each.records for each in shards) == failed.unanswered
    for each in shards:
        if each.job:
            flow.wait(each, flow.submit(each)[1])
        flow.ingest(each)
    counts = flow.reconcile().counts
    assert (counts.indexed, counts.dead_letters, flow.paid()) == (len(flow.ids), 0, jobs_with_repair(name))
    has_true_documents(flow)


@pytest.mark.parametrize("name", ["openai", pytest.param("cohere", marks=slow)])
def test_a_repair_that_fails(start: Start, name: str) -> None:
    """What the first job predicted is indexed, the rest are dead letters; a clear of repair pays once, not for ever."""
    flow = start(name)
    flow.fault("partial", every=2)
    shard = flow.prepare()
    flow.wait(shard, flow.submit(shard)[1])
    flow.fault("fail")
    report = flow.ingest(shard)
    failing = present(flow.repair())
    left = len(flow.ids) - report.counts.indexed
    assert (failing.job, failing.documents, flow.paid()) == ("", left, 2)
    assert 0 < left < len(flow.ids)
    assert flow.repair() == failing
    letters = flow.ingest(failing)
    assert (letters.counts.indexed, letters.counts.dead_letters, flow.paid()) == (0, left, 2)
    account = flow.reconcile([failing])
    assert (account.counts.indexed, account.counts.dead_letters) == (len(flow.ids) - left, left)
    flow.fault("fail")
    cleared = ResubmitRequest(clear="run 3")
    assert [flow.repair(cleared) for _ in range(2)] == [failing, failing]
    assert flow.paid() == 3
    mended = present(flow.repair(ResubmitRequest(clear="run 4")))
    assert (flow.ingest(mended).counts.indexed, flow.paid()) == (left, 4)


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
    assert present(cleared.end).state == "COMPLETED"
    assert (flow.finish(shard).counts.indexed, flow.paid()) == (len(flow.ids), 2)


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
    account = flow.finish(shard)
    assert (name, account.counts.indexed, flow.paid()) == ("openai", len(flow.ids), 2)


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
    flow.wait(shard, record)
    assert (flow.finish(shard).counts.indexed, flow.paid()) == (len(flow.ids), 1)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", ["reorder", "duplicate"])
def test_rows_in_any_order_and_twice(start: Start, name: str, kind: str) -> None:
    """Each finds its record; where rows are counted against records, twice is too many, and the job unusable."""
    flow = start(name)
    flow.fault(kind)
    if (name, kind) == ("sagemaker", "duplicate"):
        with pytest.raises(OutputUnusable, match="9 rows for 6 records, and the rows have no record ids"):
            flow.run()
        return
    account = flow.run()
    assert (account.counts.dead_letters, flow.paid()) == (0, 1)
    has_true_documents(flow)


@pytest.mark.parametrize("name", EVERY)
def test_rows_that_are_missing(start: Start, name: str) -> None:
    """Are asked again where rows name their records."""
    flow = start(name)
    flow.fault("missing", every=3)
    if name == "sagemaker":
        with pytest.raises(OutputUnusable, match="4 rows for 6 records"):
            flow.run()
        return
    counts = flow.run().counts
    assert (counts.indexed, counts.dead_letters) == (len(flow.ids), 0)
    assert flow.paid() == jobs_with_repair(name)


@pytest.mark.parametrize("name", EVERY)
def test_truncated(start: Start, name: str) -> None:
    """A row that is cut off is no prediction, and its record is asked again; a cut Avro file is an error."""
    flow = start(name)
    flow.fault("truncate")
    if name == "cohere":
        with pytest.raises(BatchError, match="damaged or truncated"):
            flow.run()
        return
    counts = flow.run().counts
    assert (counts.indexed, flow.paid()) == (len(flow.ids), jobs_with_repair(name))
    has_true_documents(flow)


@pytest.mark.parametrize("name", EVERY)
def test_wrong_dimension(start: Start, name: str) -> None:
    """Vectors the index does not take are dead letters, named before they are sent; the rest is indexed."""
    flow = start(name)
    flow.fault("wrong_dimension", every=2)
    account, half = flow.run(), len(flow.ids) // 2
    assert (account.counts.indexed, account.counts.dead_letters, flow.paid()) == (half, half, 1)
    assert set(flow.letters(account).values()) == {"v has 383 values; the index expects 384"}


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
    counts = flow.run().counts
    assert (counts.indexed, counts.dead_letters) == (len(flow.ids), 0)
    documents = flow.documents()
    for member, field in (("title", "first"), ("text", "second")) if several else ():
        vectors = flow.lab.vectors([f"{member} {key}" for key in flow.ids])
        for key, vector in zip(flow.ids, vectors, strict=True):
            assert as_floats(documents[key][field]) == near(vector)
    for key, document in () if several else documents.items():
        if kind == "sparse weights":
            assert document["p"]
            assert all(isinstance(weight, float) for weight in document["p"].values())
        else:
            assert document["p"] == f"TEXT {key.upper()}"
