"""The client of each service, against the local services: uploads, finding, describing and stopping jobs, errors."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import cohere
import msgspec
import openai
import pytest
from botocore.config import Config

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, NotFound, RetriableError, Throttled
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.storage.temporary import SPOOL_BYTES
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.services.clients import JobClient
from opensearch_batch.services.cohere.client import VALIDATION_TIMEOUT_S, CohereClient
from opensearch_batch.services.cohere.datasets import CohereDatasets
from opensearch_batch.services.openai.files import OpenAIFiles
from opensearch_batch.services.registry import BUILT_IN, adapter_of, service_of
from tests.local_stack.ai_services.stand import BUCKET, SECRET_KEY, Stand, request
from tests.stored import present
from tests.waiting import eventually

SUBMIT = {
    "sagemaker": "CreateTransformJob",
    "bedrock": "CreateModelInvocationJob",
    "openai": "CreateBatch",
    "cohere": "CreateEmbedJob",
}
LINES = {
    "openai": b'{"custom_id":"r1","method":"POST","url":"/v1/embeddings","body":{"model":"text-embedding-3-small",'
    b'"input":["one"]}}\n',
    "cohere": b'{"text":"one","record_id":"r1"}\n',
}
NOWHERE = "http://127.0.0.1:9"
Client = Any


class Subject:
    """One service, its client, and the calls that ML Commons would make."""

    def __init__(self, stand: Stand, name: str, api: Client) -> None:
        self.stand, self.name, self.api = stand, name, api
        self.objects = S3Objects(stand.s3)
        self.client = service_of(name).client(api, self.objects)
        self.adapter = adapter_of(name)

    def record(self, job: str | None = None) -> JobRecord:
        """The record of a job whose shard is staged."""
        job = job or f"job-{uuid.uuid4().hex[:12]}"
        uri = f"s3://{BUCKET}/{job}/input.jsonl"
        self.objects.write(uri, LINES.get(self.name, b'{"text":"one"}\n'))
        record = JobRecord("k", job, self.name, "m", uri, f"s3://{BUCKET}/{job}/output/", 0.0)
        return msgspec.structs.replace(record, staged=self.client.stage(uri, job))

    def submit(self, record: JobRecord) -> None:
        """Submit a job as ML Commons does; nobody keeps the answer."""
        submits: dict[str, Callable[[], Any]] = {
            "sagemaker": lambda: self.api.create_transform_job(
                **request(record.name, f"{record.name}/input.jsonl", f"{record.name}/output/")
            ),
            "bedrock": lambda: self.api.create_model_invocation_job(
                jobName=record.name,
                modelId="amazon.titan-embed-text-v2:0",
                roleArn="arn:aws:iam::123456789012:role/batch",
                inputDataConfig={"s3InputDataConfig": {"s3Uri": record.input}},
                outputDataConfig={"s3OutputDataConfig": {"s3Uri": record.output}},
            ),
            "openai": lambda: self.api.batches.create(
                input_file_id=record.staged["input_file_id"], endpoint="/v1/embeddings", completion_window="24h"
            ),
            "cohere": lambda: self.api.embed_jobs.create(
                model="embed-english-v3.0",
                dataset_id=record.staged["dataset_id"],
                input_type="search_document",
                name=record.name,
            ),
        }
        submits[self.name]()

    def delayed(self) -> None:
        """Let the next job begin after an hour."""
        self.stand.fault("delay", service=self.name, operation=SUBMIT[self.name], seconds=3600)


def api_of(name: str, url: str, key: str = SECRET_KEY) -> Client:
    """A service's own client, which asks once."""
    if name == "openai":
        return openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
    if name == "cohere":
        return cohere.Client(api_key=key, base_url=url, max_retries=0)
    make: Any = boto3.client
    return make(
        name,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="AKIDLOCALSTACKTEST",
        aws_secret_access_key=key,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def open_client() -> Iterator[Callable[..., Client]]:
    """Make clients that are closed in the end."""
    with ExitStack() as stack:

        def made(name: str, url: str, key: str = SECRET_KEY) -> Client:
            client = api_of(name, url, key)
            close = client.__exit__ if name == "cohere" else lambda *_: client.close()
            stack.push(lambda *_: close(None, None, None))
            return client

        yield made


@pytest.fixture
def subject(ai_stand: Stand, open_client: Callable[..., Client]) -> Callable[[str], Subject]:
    """Open the client of a service."""
    return lambda name: Subject(ai_stand, name, open_client(name, ai_stand.app_url))


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_orphan_is_found_described_and_stopped(subject: Callable[[str], Subject], name: str) -> None:
    """The adapter reads its answers; stopping it twice is stopping it once."""
    it = subject(name)
    record, other = it.record(), it.record()
    assert it.client.find(record) is None
    it.delayed()
    it.submit(record)
    found = present(it.client.find(record))
    assert it.adapter.is_job(record, found)
    assert not it.adapter.is_job(other, found)
    assert it.client.find(other) is None
    known = msgspec.structs.replace(record, remote_job=msgspec.json.decode(msgspec.json.encode(found)))
    assert it.adapter.job_status(it.client.describe(known)).state == "RUNNING"
    it.client.stop(known)
    eventually(lambda: it.adapter.job_status(it.client.describe(known)).state == "CANCELLED", f"{name} stops the job")
    it.client.stop(known)


@pytest.mark.parametrize("name", ["sagemaker", "bedrock"])
def test_a_job_whose_name_begins_alike_is_another(subject: Callable[[str], Subject], name: str) -> None:
    """A list by name gives both."""
    it = subject(name)
    longer = it.record()
    it.delayed()
    it.submit(longer)
    assert it.client.find(it.record(longer.name[:-1])) is None
    assert it.client.find(longer) is not None


def test_old_batches_are_not_listed_to_the_end(subject: Callable[[str], Subject]) -> None:
    """What is behind a batch an hour older than the intent is no orphan of it; clocks may differ by less."""
    it = subject("openai")
    record, newer = it.record(), it.record()
    for each in (record, newer):
        it.delayed()
        it.submit(each)
    newest_at_s = it.api.batches.list(limit=1).data[0].created_at
    intents = [msgspec.structs.replace(record, intended_at=newest_at_s + later) for later in (3600.0, 3601.0)]
    assert [it.client.find(each) is not None for each in intents] == [True, False]


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_unknown_job_is_not_found(subject: Callable[[str], Subject], name: str) -> None:
    """Whether the record says how the service calls it or not."""
    it = subject(name)
    record = it.record()
    known = {"openai": {"id": "batch_0"}, "cohere": {"job_id": "0"}}.get(name, {})
    arn = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/abcdefghijkl"
    for remote_job in ({}, {"jobArn": arn} if name == "bedrock" else known):
        for call in (it.client.describe, it.client.stop):
            with pytest.raises(NotFound, match=r"not found at|is known|has no job|An error occurred"):
                call(msgspec.structs.replace(record, remote_job=remote_job))


@pytest.mark.parametrize("name", ["sagemaker", "bedrock"])
def test_what_reads_from_s3_needs_no_upload(subject: Callable[[str], Subject], name: str) -> None:
    """Nothing is staged, and nothing is taken back."""
    it = subject(name)
    assert it.client.stage("s3://nowhere/at-all", "n") == {}
    it.client.unstage({})


def test_a_shard_is_uploaded_whole_however_large(subject: Callable[[str], Subject]) -> None:
    """Beyond what is held in memory; it is removed once, and again without an error."""
    it = subject("openai")
    content = bytes(range(256)) * (SPOOL_BYTES // 256) + b"the end"
    it.objects.write(f"s3://{BUCKET}/large", content)
    staged = it.client.stage(f"s3://{BUCKET}/large", "large")
    file = it.api.files.retrieve(staged["input_file_id"])
    assert (file.filename, file.purpose, file.bytes) == ("large.jsonl", "batch", len(content))
    assert it.api.files.content(file.id).content == content
    for _ in range(2):
        it.client.unstage(staged)
    with pytest.raises(openai.NotFoundError, match="Error code: 404"):
        it.api.files.retrieve(file.id)


@pytest.mark.parametrize(("name", "kind"), [("openai", OpenAIFiles), ("cohere", CohereDatasets)])
def test_what_lies_at_a_service_can_be_removed(subject: Callable[[str], Subject], name: str, kind: Any) -> None:
    """Its outputs go with all else when their time has come; once, and again without an error."""
    it = subject(name)
    it.objects.write(f"s3://{BUCKET}/one", b'{"text":"a","record_id":"r0"}\n')
    (file_id,) = it.client.stage(f"s3://{BUCKET}/one", "one").values()
    store, uri = kind(it.api), f"{name}://{file_id}"
    assert store.head(uri) is not None
    for _ in range(2):
        store.delete(uri)
    assert store.head(uri) is None


def test_a_dataset_keeps_the_ids_and_is_waited_for(ai_stand: Stand, subject: Callable[[str], Subject]) -> None:
    """A job over one that is still being validated would be refused."""
    it = subject("cohere")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        ai_stand.end_delays()

    it.objects.write(f"s3://{BUCKET}/one", LINES["cohere"])
    ai_stand.fault("delay", service="cohere", operation="CreateDataset", seconds=3600)
    made = CohereClient(it.api, it.objects, clock=lambda: 0.0, sleep=sleep)
    staged = made.stage(f"s3://{BUCKET}/one", "one")
    assert slept == [2.0]
    dataset = it.api.datasets.get(staged["dataset_id"]).dataset
    assert (dataset.validation_status, dataset.preserve_fields) == ("validated", ["record_id"])
    for _ in range(2):
        made.unstage(staged)
    with pytest.raises(cohere.NotFoundError, match="status_code: 404"):
        it.api.datasets.get(staged["dataset_id"])


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("fail", ConfigError, "s3://batch/one: Cohere rejected the dataset: the file could not be read"),
        ("delay", RetriableError, "Cohere did not validate it in 900 s"),
    ],
)
def test_a_dataset_that_is_not_validated_is_taken_back(
    ai_stand: Stand, subject: Callable[[str], Subject], fault: str, error: type[BatchError], message: str
) -> None:
    """Nobody would know of it."""
    it = subject("cohere")
    before = [dataset.id for dataset in it.api.datasets.list().datasets]
    times = iter([0.0, 1.0, VALIDATION_TIMEOUT_S])
    slept: list[float] = []
    it.objects.write(f"s3://{BUCKET}/one", LINES["cohere"])
    ai_stand.fault(fault, service="cohere", operation="CreateDataset", seconds=3600)
    with pytest.raises(error, match=message):
        CohereClient(it.api, it.objects, clock=lambda: next(times), sleep=slept.append).stage(
            f"s3://{BUCKET}/one", "one"
        )
    assert slept == ([2.0] if fault == "delay" else [])
    assert [dataset.id for dataset in it.api.datasets.list().datasets] == before


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize(("fault", "error"), [("throttle", Throttled), ("error", RetriableError)])
def test_throttling_and_failures_of_the_service_can_be_retried(
    ai_stand: Stand, subject: Callable[[str], Subject], name: str, fault: str, error: type[BatchError]
) -> None:
    """The service did nothing yet."""
    it = subject(name)
    record = it.record()
    ai_stand.fault(fault, service=name)
    with pytest.raises(error, match=r"answered|An error occurred") as raised:
        it.client.find(record)
    assert type(raised.value) is error
    assert it.client.find(record) is None


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_refused_key_is_a_config_error_that_does_not_repeat_it(
    subject: Callable[[str], Subject], open_client: Callable[..., Client], name: str
) -> None:
    """No retry would help."""
    it = subject(name)
    record = it.record()
    wrong = service_of(name).client(open_client(name, it.stand.app_url, "sk-wrong-key"), it.objects)
    with pytest.raises(ConfigError, match=r"correct (the|the AWS) connection") as raised:
        wrong.find(record)
    assert "sk-wrong-key" not in str(raised.value)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_service_that_is_away_can_be_tried_again(
    subject: Callable[[str], Subject], open_client: Callable[..., Client], name: str
) -> None:
    """No server on the port."""
    it = subject(name)
    record = it.record()
    away = service_of(name).client(open_client(name, NOWHERE), it.objects)
    with pytest.raises(RetriableError, match="does not answer"):
        away.find(record)


def test_a_call_that_cannot_leave_is_for_a_person(subject: Callable[[str], Subject]) -> None:
    """No retry makes a name of it that AWS takes."""
    it = subject("sagemaker")
    with pytest.raises(ConfigError, match="Parameter validation failed"):
        it.client.describe(msgspec.structs.replace(it.record(), name=""))


class Ending(JobClient):
    """A job that is live as often as `lives` says, and whose service refuses to cancel it."""

    live = frozenset({"live"})

    def __init__(self, lives: list[bool], refusal: BatchError) -> None:
        self._lives, self._refusal = iter(lives), refusal
        self.cancels = 0

    def describe(self, record: JobRecord) -> dict[str, Any]:  # noqa: ARG002 - one job
        """Return what it is now."""
        return {"status": "live" if next(self._lives) else "ended"}

    def find(self, record: JobRecord) -> None:
        """Find nothing."""

    def cancel(self, record: JobRecord) -> None:  # noqa: ARG002 - one job
        """Refuse."""
        self.cancels += 1
        raise self._refusal


@pytest.mark.parametrize("refusal", [ConfigError("ended"), FatalError("ended")])
def test_a_job_that_ends_while_it_is_being_stopped_is_left_as_it_is(refusal: BatchError) -> None:
    """A refusal counts only if the job is still live after it."""
    record = JobRecord("k", "n", "s", "m", "i", "o", 0.0)
    ended, live, dead = (Ending(lives, refusal) for lives in ([True, False], [True, True], [False]))
    ended.stop(record)
    with pytest.raises(type(refusal), match="ended"):
        live.stop(record)
    dead.stop(record)
    assert [each.cancels for each in (ended, live, dead)] == [1, 1, 0]
