"""OpenAI's embeddings, chat and batches, driven by the `openai` package as it is."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from include.local_stack.ai_services.model import MiniLM
from tests.local_stack.ai_services.stand import Stand
from tests.waiting import eventually

MODEL = "text-embedding-3-small"
ENDED = {"completed", "failed", "expired", "cancelled"}
EMBEDDINGS, CHAT = "/v1/embeddings", "/v1/chat/completions"


@pytest.fixture
def client(ai_stand: Stand) -> Iterator[openai.OpenAI]:
    """A client with the right key."""
    with ai_stand.openai() as made:
        yield made


def line(number: int, content: Any = "", **changes: Any) -> dict[str, Any]:
    """One request of a batch."""
    body = {"model": MODEL, "input": content or f"text {number}"}
    return {"custom_id": f"r{number}", "method": "POST", "url": EMBEDDINGS, "body": body, **changes}


def submit(client: openai.OpenAI, lines: list[Any], *, endpoint: Any = EMBEDDINGS) -> str:
    """Upload these lines and start a batch: its id."""
    content = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines)
    file = client.files.create(file=("in.jsonl", content.encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"run": "1"}
    )
    assert (batch.status, batch.input_file_id) == ("validating", file.id)
    return batch.id


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    """The batch once it has ended."""
    eventually(lambda: client.batches.retrieve(batch_id).status in ENDED, "the batch ends")
    return client.batches.retrieve(batch_id)


def rows(client: openai.OpenAI, file_id: str | None) -> list[Any]:
    """The rows of a file; none of no file."""
    return [json.loads(row) for row in client.files.content(file_id).text.splitlines()] if file_id else []


def run(client: openai.OpenAI, lines: list[Any], **options: Any) -> Any:
    """A batch of these lines, ended."""
    return ended(client, submit(client, lines, **options))


def counts(batch: Any) -> tuple[int, int, int]:
    """What the batch says it did: total, completed, failed."""
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def ids(found: list[Any]) -> list[str]:
    """The custom ids of rows."""
    return [row["custom_id"] for row in found]


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_embeddings_are_the_models(client: openai.OpenAI, ai_model: MiniLM, options: Any) -> None:
    """Of one text or several; the package asks for base64 unless it is told otherwise."""
    texts = ["a cat sleeps", "naïve 日本語"]
    answer = client.embeddings.create(model=MODEL, input=texts, **options)
    assert [one.index for one in answer.data] == [0, 1]
    assert np.abs(np.array([one.embedding for one in answer.data]) - ai_model.encode(texts)).max() < 1e-5
    assert answer.usage.total_tokens == sum(map(len, ai_model.tokens(texts)))
    assert len(client.embeddings.create(model=MODEL, input="one").data) == 1


def test_shorter_embeddings_are_unit_vectors(client: openai.OpenAI) -> None:
    """`dimensions` cuts and normalises; more than the model has stays what the model has."""
    (short,) = client.embeddings.create(model=MODEL, input="one", dimensions=8).data
    assert (len(short.embedding), round(float(np.linalg.norm(short.embedding)), 5)) == (8, 1.0)
    (long,) = client.embeddings.create(model=MODEL, input="one", dimensions=1536).data
    assert len(long.embedding) == 384


def test_chat_says_the_last_user_message_in_capitals(client: openai.OpenAI) -> None:
    """Of a plain text and of parts; the same request has the same answer."""
    messages: Any = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "FIRST"},
        {"role": "user", "content": [{"type": "text", "text": "second"}]},
    ]
    answers = [client.chat.completions.create(model="gpt-4o-mini", messages=messages) for _ in range(2)]
    assert [answer.choices[0].message.content for answer in answers] == ["SECOND", "SECOND"]
    assert answers[0].choices[0].finish_reason == "stop"
    assert answers[0].id == answers[1].id


@pytest.mark.parametrize("content", ["", [], ["one", ""], ["one", 1], [[1, 2]], ["x"] * 2049])
def test_an_input_that_is_no_text_is_refused(client: openai.OpenAI, content: Any) -> None:
    """As a bad request, which no client retries."""
    with pytest.raises(openai.BadRequestError, match="input' is invalid"):
        client.embeddings.create(model=MODEL, input=content)


def test_a_batch_answers_every_request(client: openai.OpenAI, ai_model: MiniLM) -> None:
    """With the rows, states and times that OpenAI documents; of several inputs there are several vectors."""
    batch = run(client, [line(1), line(2, ["two", "three"])])
    assert (batch.status, counts(batch), batch.error_file_id) == ("completed", (2, 2, 0), None)
    assert batch.metadata == {"run": "1"}
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.expires_at == batch.created_at + 86_400
    one, two = rows(client, batch.output_file_id)
    assert (one["custom_id"], one["error"], one["response"]["status_code"]) == ("r1", None, 200)
    assert sorted(one) == ["custom_id", "error", "id", "response"]
    found = [item["embedding"] for item in two["response"]["body"]["data"]]
    assert np.abs(np.array(found) - ai_model.encode(["two", "three"])).max() < 1e-5
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_a_batch_of_chats(client: openai.OpenAI) -> None:
    """Its answers are the ones of single requests."""
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "gpt-4o-mini", "messages": messages}
    batch = run(client, [line(1, url=CHAT, body=body)], endpoint=CHAT)
    (row,) = rows(client, batch.output_file_id)
    assert row["response"]["body"]["choices"][0]["message"]["content"] == "HELLO"


def test_requests_that_fail_stand_in_the_error_file(client: openai.OpenAI) -> None:
    """With the status and the error of the endpoint; the others are in the output file."""
    batch = run(client, [line(1), line(2, [7]), line(3, body={"model": MODEL, "other": 1})])
    assert (batch.status, counts(batch)) == ("completed", (3, 1, 2))
    assert ids(rows(client, batch.output_file_id)) == ["r1"]
    bad = rows(client, batch.error_file_id)
    assert ids(bad) == ["r2", "r3"]
    assert [(row["error"], row["response"]["status_code"]) for row in bad] == [(None, 400)] * 2
    assert bad[0]["response"]["body"]["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([line(1), "{'no': json}"], "invalid_json_line", 2),
        ([line(1), "[]"], "invalid_json_line", 2),
        ([line(1), line(1)], "duplicate_custom_id", 2),
        ([line(1, url="/v1/unknown")], "url_mismatch", 1),
        ([line(1, url=CHAT)], "url_mismatch", 1),
        ([line(1, method="GET")], "invalid_method", 1),
        ([line(1, custom_id="")], "missing_required_parameter", 1),
        ([line(1, custom_id=7)], "invalid_type", 1),
        ([line(1), line(2, body={"model": "other", "input": "x"})], "model_mismatch", 2),
        ([], "empty_file", None),
    ],
)
def test_a_file_with_a_mistake_fails_the_whole_batch(
    client: openai.OpenAI, lines: list[Any], code: str, number: int | None
) -> None:
    """The error names its line; nothing was computed, and no file was written."""
    batch = run(client, lines)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    (error,) = batch.errors.data
    assert (error.code, error.line) == (code, number)
    assert batch.failed_at >= batch.created_at
    assert batch.in_progress_at is None


def test_what_cannot_be_a_batch_is_refused_at_once(client: openai.OpenAI) -> None:
    """An unknown endpoint, window or file is a bad request, and counts as no job."""
    file = client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    other = client.files.create(file=("in.jsonl", b"{}"), purpose="user_data")
    good: Any = {"input_file_id": file.id, "endpoint": EMBEDDINGS, "completion_window": "24h"}
    wrong: list[Any] = [
        ({"endpoint": "/v1/unknown"}, "Invalid value: '/v1/unknown'. Supported values are: '/v1/embeddings'"),
        ({"completion_window": "1h"}, "Invalid value: '1h'"),
        ({"input_file_id": "file-none"}, "No such File object: file-none"),
        ({"input_file_id": other.id}, "Invalid file purpose: user_data"),
        ({"endpoint": None}, "Missing required parameter: 'endpoint'"),
    ]
    for change, message in wrong:
        with pytest.raises(openai.BadRequestError, match=message):
            client.batches.create(**{**good, **change})


def test_batches_are_listed_the_newest_first_page_by_page(ai_stand: Stand, client: openai.OpenAI) -> None:
    """A page ends where the next begins; the package walks through them all."""
    ai_stand.fault("delay", service="openai", seconds=3600, times=3)
    made = [submit(client, [line(1)]) for _ in range(3)]
    first = client.batches.list(limit=2)
    assert ([batch.id for batch in first.data], first.has_more) == (made[:0:-1], True)
    after = client.batches.list(limit=1, after=made[1])
    assert [batch.id for batch in after.data] == [made[0]]
    walked = [batch.id for batch in client.batches.list(limit=2)]
    assert walked[:3] == made[::-1]
    assert len(walked) == len(set(walked)) == ai_stand.job_count("openai")
    for bad in ({"limit": 0}, {"limit": 101}, {"after": "batch_none"}):
        with pytest.raises(openai.BadRequestError, match="Error code: 400"):
            client.batches.list(**bad)


def test_an_expired_batch_keeps_what_was_done(ai_stand: Stand, client: openai.OpenAI) -> None:
    """The rest stands in the error file, and every request in one of the two."""
    ai_stand.fault("expire", service="openai")
    batch = run(client, [line(number) for number in range(1, 6)])
    assert (batch.status, counts(batch)) == ("expired", (5, 2, 3))
    assert batch.expired_at >= batch.created_at
    assert ids(rows(client, batch.output_file_id)) == ["r1", "r2"]
    left = rows(client, batch.error_file_id)
    assert ids(left) == ["r3", "r4", "r5"]
    assert {(row["response"], row["error"]["code"]) for row in left} == {(None, "batch_expired")}


def test_a_cancelled_batch_that_never_began(ai_stand: Stand, client: openai.OpenAI) -> None:
    """Its requests all stand in the error file; cancelling once more is refused."""
    ai_stand.fault("delay", service="openai", seconds=3600)
    batch_id = submit(client, [line(1), line(2)])
    assert client.batches.cancel(batch_id).status == "cancelling"
    batch = ended(client, batch_id)
    assert (batch.status, counts(batch), batch.output_file_id) == ("cancelled", (2, 0, 2), None)
    assert batch.cancelling_at <= batch.cancelled_at
    assert [row["error"]["code"] for row in rows(client, batch.error_file_id)] == ["batch_cancelled"] * 2
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status 'cancelled'"):
        client.batches.cancel(batch_id)


def test_a_cancelled_batch_whose_file_has_mistakes(ai_stand: Stand, client: openai.OpenAI) -> None:
    """Is cancelled, and has no files."""
    ai_stand.fault("delay", service="openai", seconds=3600)
    batch_id = submit(client, ["no json"])
    client.batches.cancel(batch_id)
    batch = ended(client, batch_id)
    assert (batch.status, batch.errors, batch.error_file_id) == ("cancelled", None, None)


def test_a_batch_cancelled_while_it_is_computed(client: openai.OpenAI) -> None:
    """What was done and what was not are together all requests, in their order."""
    batch_id = submit(client, [line(number, f"{number} the sea is wide " * 8) for number in range(1, 701)])
    eventually(lambda: counts(client.batches.retrieve(batch_id))[1] > 0, "some are done")
    client.batches.cancel(batch_id)
    batch = ended(client, batch_id)
    done, left = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    assert (batch.status, counts(batch)) == ("cancelled", (700, len(done), len(left)))
    assert ids(done + left) == [f"r{number}" for number in range(1, 701)]
    assert 0 < len(done) < 700


@pytest.mark.slow
def test_a_batch_outlives_its_worker(ai_stand: Stand, client: openai.OpenAI) -> None:
    """The next worker computes it from its start; it has one output file, of the same id as any run gives it."""
    before = {file.id for file in client.files.list(purpose="batch_output")}
    batch_id = submit(client, [line(number, f"{number} the sea is wide " * 8) for number in range(1, 2_001)])
    eventually(lambda: counts(client.batches.retrieve(batch_id))[1] > 0, "some are done")
    ai_stand.kill_worker()
    status = client.batches.retrieve(batch_id).status
    ai_stand.start_worker()
    assert status == "in_progress"
    batch = ended(client, batch_id)
    assert (batch.status, counts(batch)) == ("completed", (2_000, 2_000, 0))
    assert ids(rows(client, batch.output_file_id)) == [f"r{number}" for number in range(1, 2_001)]
    assert {file.id for file in client.files.list(purpose="batch_output")} - before == {batch.output_file_id}


def test_calls_fail_as_often_as_asked(ai_stand: Stand, client: openai.OpenAI) -> None:
    """Rate limit, quota and server error have OpenAI's status and code."""
    kinds = {"throttle": (429, "rate_limit_exceeded"), "quota": (429, "insufficient_quota"), "error": (500, None)}
    for fault, expected in kinds.items():
        ai_stand.fault(fault, service="openai", operation="ListBatches")
        with pytest.raises(openai.APIStatusError, match=f"Error code: {expected[0]}") as caught:
            client.batches.list()
        assert (caught.value.status_code, caught.value.code) == expected
        client.batches.list()


def test_a_lost_response_hides_an_accepted_batch(ai_stand: Stand, client: openai.OpenAI) -> None:
    """The list has it, by its input file."""
    file = client.files.create(file=("in.jsonl", json.dumps(line(1)).encode()), purpose="batch")
    ai_stand.fault("lost_response", service="openai", operation="CreateBatch")
    with pytest.raises(openai.InternalServerError, match="Error code: 50"):
        client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    (found,) = [batch for batch in client.batches.list(limit=5).data if batch.input_file_id == file.id]
    assert ended(client, found.id).status == "completed"


@pytest.mark.parametrize(
    ("fault", "good", "bad"),
    [
        ("partial", ["r1", "r3"], ["r2", "r4"]),
        ("missing", ["r1", "r3"], []),
        ("duplicate", ["r1", "r2", "r2", "r3", "r4", "r4"], []),
        ("reorder", ["r4", "r3", "r2", "r1"], []),
    ],
)
def test_faults_of_rows(ai_stand: Stand, client: openai.OpenAI, fault: str, good: list[str], bad: list[str]) -> None:
    """The output is not what the batch says of itself, but for the requests that failed."""
    ai_stand.fault(fault, service="openai", operation="CreateBatch")
    batch = run(client, [line(number) for number in range(1, 5)])
    assert (batch.status, counts(batch)) == ("completed", (4, 4 - len(bad), len(bad)))
    assert ids(rows(client, batch.output_file_id)) == good
    failed = rows(client, batch.error_file_id)
    assert [(row["custom_id"], row["response"]["status_code"]) for row in failed] == [(one, 500) for one in bad]


def test_faults_within_rows(ai_stand: Stand, client: openai.OpenAI) -> None:
    """Every third vector lacks a number, and the last row ends in its middle."""
    ai_stand.fault("wrong_dimension", service="openai", every=3)
    ai_stand.fault("truncate", service="openai", operation="CreateBatch")
    batch = run(client, [line(number) for number in range(1, 5)])
    assert batch.output_file_id is not None
    *whole, cut = client.files.content(batch.output_file_id).text.splitlines()
    vectors = [json.loads(row)["response"]["body"]["data"][0]["embedding"] for row in whole]
    assert [len(vector) for vector in vectors] == [384, 384, 383]
    with pytest.raises(json.JSONDecodeError, match=r"Expecting|Unterminated"):
        json.loads(cut)


def test_a_batch_that_is_told_to_fail(ai_stand: Stand, client: openai.OpenAI) -> None:
    """As OpenAI fails a batch whose tokens it has no room for now."""
    ai_stand.fault("fail", service="openai")
    batch = run(client, [line(1)])
    assert (batch.status, batch.errors.data[0].code) == ("failed", "token_limit_exceeded")


def test_as_ml_commons_calls(ai_stand: Stand, client: openai.OpenAI) -> None:
    """By the production host, with a bearer key and an empty body to cancel; another service's host has no batches."""
    ai_stand.fault("delay", service="openai", seconds=3600)
    batch_id = submit(client, [line(1)])
    host = "api.openai.com"
    assert ai_stand.bearer("GET", f"/v1/batches/{batch_id}", host=host).json()["status"] == "validating"
    assert ai_stand.bearer("GET", f"/v1/batches/{batch_id}", host="api.cohere.com").status_code == 404
    cancelled = ai_stand.bearer("POST", f"/v1/batches/{batch_id}/cancel", host=host)
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelling")
    assert ended(client, batch_id).status == "cancelled"
    assert ai_stand.bearer("GET", "/v1/batches/batch_none", host=host).status_code == 404


def test_without_the_key_nothing_is_answered(ai_stand: Stand) -> None:
    """A wrong key is a 401 for each operation, and stands in no answer."""
    with ai_stand.openai(key="sk-wrong-key-1234") as wrong:
        for call in (wrong.batches.list, lambda: wrong.embeddings.create(model=MODEL, input="x")):
            with pytest.raises(openai.AuthenticationError, match="Error code: 401") as caught:
                call()
            assert "wrong-key" not in str(caught.value)
