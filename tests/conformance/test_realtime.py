"""Few changed records are predicted in real time by each service, as a batch job would have predicted them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.submission import INTENT_GRACE_S
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.services.registry import BUILT_IN
from tests.conformance.shard_flow import ShardFlow
from tests.faults.submit_worker import REALTIME_MOMENTS, Task, submit_and_die
from tests.stored import present

BELOW = 50
# ML Commons inserts texts into the text of a request.
TEXTS = ['{"a": 1}', '["a"]', "${parameters.model} costs $${5}", 'a "cat" \\ \n naïve', "  {"]
Start = Callable[[str], ShardFlow]


def put(flow: ShardFlow, name: str, texts: list[str]) -> list[Shard]:
    """Add an object with records of these texts, and prepare a run, which predicts few records in real time."""
    rows = (json.dumps({"id": f"{name}{at}", "text": text}) for at, text in enumerate(texts))
    flow.lab.objects.write(f"s3://{flow.bucket}/in/{name}.jsonl", "\n".join(rows).encode())
    return flow.prepare_run(realtime=flow.realtime_limit(BELOW))


def finish(flow: ShardFlow, shard: Shard, record: JobRecord) -> None:
    """Ingest the predictions, and commit the run."""
    assert present(record.end).state == "COMPLETED"
    flow.finish(shard)


@pytest.mark.parametrize("name", BUILT_IN)
def test_few_records_are_predicted_in_real_time(start_flow: Start, name: str) -> None:
    """One request each and no job; the vectors are those of the model, whatever the texts are.

    The connector of Bedrock has no parameter `model`, so ML Commons refuses the text that names it.
    """
    flow = start_flow(name)
    before = flow.requests()
    (shard,) = put(flow, "few", TEXTS)
    assert (shard.realtime, shard.records) == (True, len(TEXTS))
    decision, record = flow.submit(shard)
    # `Lab.vectors` asks one of the services, too.
    paid = flow.requests() - before
    assert (decision, paid, flow.paid()) == ("submit", len(TEXTS) - (name == "bedrock"), 0)
    finish(flow, shard, record)
    vectors = dict(zip(TEXTS, flow.lab.vectors(TEXTS), strict=True))
    if name == "bedrock":
        assert record.remote_job["request_counts"]["failed"] == 1
        del vectors[TEXTS[2]]
    found = {each["text"]: each["v"] for each in flow.documents().values()}
    assert found.keys() == vectors.keys()
    # The model computes several texts at once a little differently.
    assert all(found[text] == pytest.approx(vector, abs=1e-6) for text, vector in vectors.items())
    assert flow.submit(shard) == ("reuse", record)


def test_a_change_is_too_small_for_a_job_no_more(start_flow: Start) -> None:
    """Amazon Bedrock takes jobs of 100 records; the default of a pipeline is that number."""
    flow = start_flow("bedrock")
    flow.run()
    (shard,) = put(flow, "more", ["one", "two", "three"])
    before = flow.requests()
    finish(flow, shard, flow.submit(shard)[1])
    assert (flow.requests() - before, flow.paid()) == (3, 1)
    assert {"more0", "more1", "more2"} <= flow.documents().keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_service_that_throttles_is_asked_again(start_flow: Start, name: str) -> None:
    """Each request is paid for once."""
    flow = start_flow(name)
    flow.lab.fault(service=name, fault="throttle", operation=OPERATIONS[name], times=2)
    (shard,) = put(flow, "few", ["a", "b"])
    record = flow.submit(shard)[1]
    assert record.remote_job["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    finish(flow, shard, record)
    assert set(flow.documents()) == {"few0", "few1"}


OPERATIONS = {
    "sagemaker": "InvokeEndpoint",
    "bedrock": "InvokeModel",
    "openai": "CreateEmbedding",
    "cohere": "Embed",
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", REALTIME_MOMENTS)
def test_a_killed_process_repays_at_most_one_request(start_flow: Start, moment: str) -> None:
    """The next attempt goes on behind the last stored response."""
    flow = start_flow("bedrock")
    (shard,) = put(flow, "few", [f"text {number}" for number in range(6)])
    before = flow.requests()
    task = Task(flow.lab.stack.home, flow.lab.version, "bedrock", flow.bucket, flow.index, shard, moment)
    assert submit_and_die(task) == signal.SIGKILL
    decision, record = flow.submit(shard, later_s=INTENT_GRACE_S)
    assert decision == "recover"
    assert flow.requests() - before == 6 + REALTIME_MOMENTS[moment][1]
    finish(flow, shard, record)
    assert len(flow.documents()) == 6


def test_a_stored_connector_gets_a_predict_action(start_flow: Start) -> None:
    """Connector and model of an earlier version stay; only the action of real-time requests is replaced."""
    flow = start_flow("cohere")
    stored, changed = (flow.connector_body() for _ in range(2))
    stored["actions"][0]["request_body"] = '{ "texts": ${parameters.texts}, "model": "${parameters.model}" }'
    stored["name"] = changed["name"] = f"Cohere {flow.bucket}"
    old, new = (flow.ml.ensure_model(f"m {flow.bucket}", body) for body in (stored, changed))
    assert old.id == new.id
    actions = flow.ml.model(old.id).actions
    assert [each["request_body"] for each in actions] == [each["request_body"] for each in changed["actions"]]
    flow.model = old
    with pytest.raises(ConfigError, match="but a batch job"):
        flow.realtime_limit(BELOW)
