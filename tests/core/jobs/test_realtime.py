"""Real-time requests: each record is paid for once, but for the one request that is under way when a process dies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from opensearchpy import OpenSearch

from opensearch_batch.core.errors import ConfigError, RetriableError, Throttled
from opensearch_batch.core.jobs import realtime
from opensearch_batch.core.jobs.contract import output_uris
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.realtime import ATTEMPTS, RealtimeSubmitter, in_real_time
from opensearch_batch.core.jobs.submission import INTENT_GRACE_S, MLCommonsSubmitter, Submission
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.opensearch.ml_commons import MLCommons, Model
from opensearch_batch.core.types.job import End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.services.registry import adapter_of
from tests.core.jobs.test_predict_action import connector
from tests.core.memory_objects import MemoryObjects
from tests.serving import Exchange, Server
from tests.stored import present

TEXTS = [f"text {number}" for number in range(8)]
FOLDER, INPUT = "s3://w/jobs/k", "s3://w/jobs/k/input.jsonl"
REFUSED = {"status": 400, "error": {"type": "status_exception", "reason": 'Error from remote service: {"message":"x"}'}}
LOST = b'{"inference_results":'


class Killed(BaseException):
    """The process dies."""


class Node:
    """A node whose ML Commons answers `_predict` with the length of the text, or with what a test puts before it."""

    def __init__(self) -> None:
        self.paid = Counter[str]()
        self.answers = dict[str, list[tuple[int, Any]]]()
        self.at: Callable[[str], object] = lambda text: None  # noqa: ARG005 - a test replaces it
        self.server = Server(self._handle)

    def _handle(self, request: Exchange) -> None:
        text = json.loads(request.body())["parameters"]["inputText"]
        status, content = (self.answers.get(text) or [(200, None)]).pop(0)
        self.paid[text] += status == 200
        self.at(text)
        found = {"inference_results": [{"output": [{"data": [float(len(text))]}], "status_code": 200}]}
        if content is LOST:
            return request.reply(200, json.dumps(found).encode(), sent=5)
        return request.reply(status, found if content is None else content)


@pytest.fixture
def node() -> Iterator[Node]:
    """A node."""
    made = Node()
    yield made
    made.server.close()


class Work:
    """The real-time requests of one shard."""

    def __init__(self, node: Node) -> None:
        self.node, self.objects, self.now = node, MemoryObjects(), 1_000.0
        self.slept: list[float] = []
        self.adapter, body = adapter_of("bedrock"), connector("bedrock")
        self.parameters = body["parameters"]
        self.model = Model("m", self.parameters, body["actions"])
        line = self.adapter.request_line(self.parameters, ["$.text"])
        lines = [line(json.dumps({"text": text}).encode(), f"r{at:010d}") for at, text in enumerate(TEXTS)]
        self.objects.write(INPUT, b"\n".join(lines) + b"\n")
        self.records = JobRecords(self.objects, FOLDER)
        self.announced: list[str] = []

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds

    def attempt(
        self,
        asked: ResubmitRequest = ResubmitRequest(),  # noqa: B008 - frozen
        draft: Callable[[int], JobRecord] = lambda number: draft(number),  # noqa: PLW0108 - it is defined below
    ) -> tuple[str, JobRecord]:
        """Do one attempt of batch_predict."""
        api = OpenSearch(self.node.server.url, max_retries=0)
        client: Any = None
        batch = MLCommonsSubmitter(
            MLCommons(Cluster(api, "node")), self.adapter, client, model=self.model, overrides={}, inputs=("$.text",)
        )
        clock = lambda: self.now  # noqa: E731 - one expression
        through = RealtimeSubmitter(batch, self.objects, self.records, clock, self.sleep, self.announced.append)
        return Submission(self.records, through, clock=clock, sleep=self.sleep).run(draft, asked)

    def rows(self, record: JobRecord) -> dict[str, Any]:
        """Return the vector, or the error, of each text in the output."""
        (uri,) = output_uris(self.adapter, record, record.remote_job)
        with self.objects.open(uri) as stream:
            rows = [json.loads(line) for line in stream]
        assert [row["recordId"] for row in rows] == [f"r{at:010d}" for at in range(len(TEXTS))]
        return {row["modelInput"]["inputText"]: row.get("modelOutput", row.get("error")) for row in rows}


def draft(submission: int) -> JobRecord:
    """Return the record of a submission."""
    output = f"{FOLDER}/output/{submission}/"
    return JobRecord("k", f"p-{submission}", "bedrock", "m", INPUT, output, 0.0, submission, realtime=True)


@pytest.fixture
def work(node: Node) -> Work:
    """A shard."""
    return Work(node)


EXPECTED = {text: {"embedding": [float(len(text))]} for text in TEXTS}


def test_each_record_is_a_request_and_the_job_has_ended(work: Work) -> None:
    """The output is that of a batch job; another attempt, or another run, finds it."""
    decision, record = work.attempt()
    assert (decision, present(record.end).state, work.rows(record)) == ("submit", "COMPLETED", EXPECTED)
    assert record.remote_job["request_counts"] == {"total": 8, "completed": 8, "failed": 0}
    assert work.attempt()[0] == "reuse"
    assert work.node.paid == Counter(TEXTS)
    assert work.announced == [f"{FOLDER}/output/1/p-1"]


def test_requests_have_a_rate(work: Work) -> None:
    """The wait before each but the first is what is left of its share of a second."""
    work.attempt()
    assert work.slept == pytest.approx([1 / realtime.MAX_REQUESTS_PER_S] * (len(TEXTS) - 1))


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_a_kill_repays_at_most_one_request(work: Work, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The process dies before it has stored the response of its request; all earlier responses are stored."""
    write, left = MemoryObjects.write, [number]

    def dying(objects: MemoryObjects, uri: str, content: bytes) -> None:
        if "/realtime/" in uri and not left[0]:
            raise Killed
        left[0] -= "/realtime/" in uri
        write(objects, uri, content)

    monkeypatch.setattr(MemoryObjects, "write", dying)
    with pytest.raises(Killed, match=r"^$"):
        work.attempt()
    monkeypatch.setattr(MemoryObjects, "write", write)
    decision, record = work.attempt()
    assert (decision, work.rows(record)) == ("recover", EXPECTED)
    assert work.node.paid == Counter([*TEXTS, TEXTS[number]])
    assert work.now >= 1_000 + INTENT_GRACE_S


def test_a_kill_after_the_last_response_repays_none(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are put together again."""
    upload = MemoryObjects.upload

    def dying(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(MemoryObjects, "upload", dying)
    with pytest.raises(Killed, match=r"^$"):
        work.attempt()
    monkeypatch.setattr(MemoryObjects, "upload", upload)
    assert work.rows(work.attempt()[1]) == EXPECTED
    assert work.node.paid == Counter(TEXTS)


def test_slow_requests_keep_their_intent(work: Work) -> None:
    """Longer in all than an intent counts as alive: another attempt waits, and pays nothing."""
    seen = list[float]()

    def slow(text: str) -> None:
        work.now += 30
        stored = present(work.records.read())
        seen.append(work.now - stored.active_at)
        assert work.now < stored.active_at + INTENT_GRACE_S, text

    work.node.at = slow
    assert work.rows(work.attempt()[1]) == EXPECTED
    assert work.now > 1_000 + 3 * INTENT_GRACE_S
    assert max(seen) == 30


def test_an_attempt_whose_intent_was_taken_over_stops(work: Work) -> None:
    """It stalls during a request; the other attempt pays for that record again, and for no other one."""
    others = list[tuple[str, JobRecord]]()

    def stall(text: str) -> None:
        if text == TEXTS[3]:
            work.node.at = lambda text: None  # noqa: ARG005 - only once
            work.now += 2 * INTENT_GRACE_S
            others.append(work.attempt())

    work.node.at = stall
    with pytest.raises(RetriableError, match="another attempt has taken over its real-time requests"):
        work.attempt()
    assert work.rows(others[0][1]) == EXPECTED
    assert work.node.paid == Counter([*TEXTS, TEXTS[3]])
    assert work.attempt() == ("reuse", others[0][1])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again_after_a_pause(work: Work, status: int) -> None:
    """The pauses grow, with jitter, and stay shorter than an intent lives."""
    failure = (status, {"status": status, "error": {"type": "x", "reason": "busy"}})
    work.node.answers[TEXTS[2]] = [failure] * (ATTEMPTS - 1) + [(200, None)]
    assert work.rows(work.attempt()[1]) == EXPECTED
    assert work.node.paid == Counter(TEXTS)
    # The shorter ones keep the rate.
    pauses = [seconds for seconds in work.slept if seconds > 2 / realtime.MAX_REQUESTS_PER_S]
    longest = [min(realtime.FIRST_PAUSE_S * 2**at, realtime.LONGEST_PAUSE_S) for at in range(ATTEMPTS - 1)]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))


def test_a_service_that_throttles_on_ends_the_attempt_and_the_next_continues(work: Work) -> None:
    """Nothing is paid for again, and the next attempt does not wait for the intent to expire."""
    failure = (429, {"status": 429, "error": {"type": "x", "reason": "busy"}})
    work.node.answers[TEXTS[2]] = [failure] * ATTEMPTS
    with pytest.raises(Throttled, match="busy"):
        work.attempt()
    began = work.now
    assert work.rows(work.attempt()[1]) == EXPECTED
    assert work.now < began + 1
    assert work.node.paid == Counter(TEXTS)


def test_a_response_that_is_lost_is_paid_for_again(work: Work) -> None:
    """A request leaves nothing at the service by which it could be found."""
    work.node.answers[TEXTS[2]] = [(200, LOST)]
    assert work.rows(work.attempt()[1]) == EXPECTED
    assert work.node.paid == Counter([*TEXTS, TEXTS[2]])


def test_a_record_that_the_model_refuses_is_an_error_row(work: Work) -> None:
    """The others have their predictions, and it is sent once."""
    work.node.answers[TEXTS[2]] = [(400, REFUSED)]
    record = work.attempt()[1]
    rows = work.rows(record)
    assert "Error from remote service" in rows.pop(TEXTS[2])["errorMessage"]
    assert rows == {text: found for text, found in EXPECTED.items() if text != TEXTS[2]}
    assert record.remote_job["request_counts"] == {"total": 8, "completed": 7, "failed": 1}
    assert work.node.paid == Counter(text for text in TEXTS if text != TEXTS[2])


def test_a_refused_call_is_no_error_of_a_record(work: Work) -> None:
    """A key or a permission that is wrong ends the attempt; after the fix the next one continues."""
    denied = {"status": 403, "error": {"type": "x", "reason": 'Error from remote service: {"message":"denied"}'}}
    work.node.answers[TEXTS[2]] = [(403, denied)]
    with pytest.raises(ConfigError, match="denied"):
        work.attempt()
    assert work.rows(work.attempt()[1]) == EXPECTED
    assert work.node.paid == Counter(TEXTS)


def test_a_user_pays_for_all_again(work: Work) -> None:
    """A run with force is one new submission."""
    work.attempt()
    decision, record = work.attempt(ResubmitRequest(force="run2"))
    assert (decision, record.submission, work.rows(record)) == ("resubmit", 2, EXPECTED)
    assert work.node.paid == Counter(TEXTS * 2)


def test_a_manifest_names_its_inputs(work: Work) -> None:
    """Each input has an output of its own, with its key in the name; blank lines are no records."""
    with work.objects.open(INPUT) as stream:
        lines = stream.read().splitlines()
    for name, part in (("a/x.jsonl", lines[:3]), ("b/x.jsonl", [*lines[3:], b""])):
        work.objects.write(f"s3://in/{name}", b"\n".join(part))
    manifest = [{"prefix": "s3://in/"}, "a/x.jsonl", "b/x.jsonl"]
    work.objects.write("s3://w/jobs/k/input.manifest", json.dumps(manifest).encode())
    first = msgspec.structs.replace(draft(1), input="s3://w/jobs/k/input.manifest")
    record = work.attempt(draft=lambda submission: first)[1]  # noqa: ARG005 - it is the first
    assert record.remote_job["realtime_outputs"] == [
        f"{FOLDER}/output/1/p-1/{name}.out" for name in ("a/x.jsonl", "b/x.jsonl")
    ]
    assert work.node.paid == Counter(TEXTS)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, True),
        # An attempt that has begun goes on in its way; a new submission goes the way of the shard.
        (msgspec.structs.replace(draft(1), realtime=False), False),
        (msgspec.structs.replace(draft(1), realtime=False, refused="too few records"), True),
        (msgspec.structs.replace(draft(1), realtime=False, end=End("FAILED", 1.0)), True),
    ],
)
def test_an_attempt_goes_on_as_it_began(stored: JobRecord | None, *, expected: bool) -> None:
    """A batch job that may be in flight is looked for."""
    assert in_real_time(Shard("0000", "k", realtime=True), stored) == expected
