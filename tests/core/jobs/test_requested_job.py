"""The job of a user's `_batch_predict` request: its identity, and when a job of his name or file is his."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import AlreadySubmitted, ConfigError, Throttled
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.requested_job import RequestedJob, RequestedJobSubmitter, content_digest, epoch_s
from opensearch_batch.core.opensearch.ml_commons import MLCommons, Model
from opensearch_batch.core.types.job import Accepted, End, JobRecord, State
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects
from tests.scripted import Scripted
from tests.stored import present

SOURCE = {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in/"}}}
BEDROCK = {"s3InputDataConfig": {"s3Uri": "s3://b/in/"}}
NOW = 10_000.0


@pytest.fixture
def objects() -> MemoryObjects:
    """A store with one input."""
    store = MemoryObjects()
    store.write("s3://b/in/1.jsonl", b"1")
    return store


def job_of(service: str, objects: MemoryObjects, model: str = "m", **parameters: Any) -> RequestedJob:
    """Return the job of a request."""
    return RequestedJob.of(adapter_of(service), model, parameters, objects)


@pytest.mark.parametrize(
    ("service", "parameters"),
    [
        ("sagemaker", {"TransformInput": SOURCE}),
        ("sagemaker", {"TransformInput": json.dumps(SOURCE)}),
        ("bedrock", {"inputDataConfig": BEDROCK}),
    ],
)
def test_the_content_of_a_prefix_is_part_of_the_identity(
    service: str, parameters: dict[str, Any], objects: MemoryObjects
) -> None:
    """Each object below it, by its ETag."""
    first = job_of(service, objects, **parameters)
    assert first.is_content_known
    assert first == job_of(service, objects, **parameters)
    objects.write("s3://b/in/2.jsonl", b"2")
    second = job_of(service, objects, **parameters)
    objects.write("s3://b/in/2.jsonl", b"22")
    assert len({first.key, second.key, job_of(service, objects, **parameters).key}) == 3


@pytest.mark.parametrize(("service", "name"), [("openai", "input_file_id"), ("cohere", "dataset_id")])
def test_the_id_of_a_file_is_its_content(service: str, name: str, objects: MemoryObjects) -> None:
    """Files at a service do not change."""
    job = job_of(service, objects, **{name: "file-1", "model": "x"})
    assert (job.is_content_known, job.input.staged, job.name) == (True, {name: "file-1"}, None)
    assert job.key != job_of(service, objects, **{name: "file-2", "model": "x"}).key


@pytest.mark.parametrize("change", [{"model": "other"}, {"region": "eu-west-1"}, {"Environment": {"a": "b"}}])
def test_model_and_parameters_are_part_of_the_identity(change: dict[str, Any], objects: MemoryObjects) -> None:
    """All of them: what a user's parameters affect is not known."""
    base: dict[str, Any] = {"model": "m", "TransformInput": SOURCE}
    assert job_of("sagemaker", objects, **base).key != job_of("sagemaker", objects, **{**base, **change}).key


def test_what_cannot_be_known_is_unknown(objects: MemoryObjects) -> None:
    """A manifest, a missing parameter, a prefix that may not be listed."""

    class Forbidden(MemoryObjects):
        def list(self, uri: str, **_: Any) -> Any:
            raise ConfigError(f"{uri}: access denied")

    manifest = {"DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": "s3://b/in/1.jsonl"}}}
    jobs = [
        job_of("sagemaker", objects, TransformInput=manifest),
        job_of("sagemaker", objects),
        job_of("bedrock", objects),
        job_of("openai", objects),
        job_of("sagemaker", Forbidden(), TransformInput=SOURCE),
    ]
    assert not [job for job in jobs if job.is_content_known]
    assert content_digest(objects, jobs[0].input) is None


@pytest.mark.parametrize(
    ("service", "parameters", "name"),
    [
        ("sagemaker", {"TransformJobName": "mine"}, "mine"),
        ("bedrock", {"jobName": "mine"}, "mine"),
        ("cohere", {"name": "mine"}, "mine"),
        ("openai", {"name": "mine"}, None),
        ("sagemaker", {}, None),
    ],
)
def test_a_user_may_choose_the_name(
    service: str, parameters: dict[str, Any], name: str | None, objects: MemoryObjects
) -> None:
    """Where jobs have names."""
    assert job_of(service, objects, **parameters).name == name


def ended(objects: MemoryObjects, state: State | None) -> JobRecords:
    """Store a record of a job that ended, or runs."""
    records = JobRecords(objects, "s3://w/jobs/k")
    record = JobRecord("k", "n", "sagemaker", "m", "in", "", 1.0, ml_task_id="t")
    end = None if state is None else End(state, 2.0)
    assert records.write(msgspec.structs.replace(record, end=end), etag=None)
    return records


@pytest.mark.parametrize(
    ("state", "is_known", "force", "name", "is_refused", "end"),
    [
        (None, True, True, "mine", False, None),
        ("COMPLETED", True, False, "mine", False, "COMPLETED"),
        ("COMPLETED", True, True, None, False, "COMPLETED"),
        ("COMPLETED", True, True, "mine", True, "COMPLETED"),
        ("COMPLETED", False, False, None, False, "UNUSABLE"),
        ("COMPLETED", False, False, "mine", True, "UNUSABLE"),
        ("FAILED", True, False, None, False, "FAILED"),
        ("FAILED", True, False, "mine", True, "FAILED"),
    ],
)
def test_an_ended_job_makes_room_for_the_next_submission(  # noqa: PLR0917 - a table
    state: State | None,
    is_known: bool,  # noqa: FBT001 - a case
    force: bool,  # noqa: FBT001 - a case
    name: str | None,
    is_refused: bool,  # noqa: FBT001 - a case
    end: str | None,
    objects: MemoryObjects,
) -> None:
    """Unless the user chose its name; a completed one over unknown content does not stand for the next request."""
    records = ended(objects, state)
    job = RequestedJob("k", name, adapter_of("sagemaker").requested_input({}), is_known)
    if is_refused:
        with pytest.raises(AlreadySubmitted, match=r"job mine ended .* give another parameters.TransformJobName"):
            job.make_room(adapter_of("sagemaker"), records, force=force, now=NOW)
    else:
        job.make_room(adapter_of("sagemaker"), records, force=force, now=NOW)
    found = present(records.read()).end
    assert (found and found.state) == end
    if end == "UNUSABLE":
        assert present(found).at == NOW


def test_before_the_first_submission_there_is_room(objects: MemoryObjects) -> None:
    """No record, nothing to do."""
    job = RequestedJob("k", "mine", adapter_of("sagemaker").requested_input({}), is_content_known=False)
    job.make_room(adapter_of("sagemaker"), JobRecords(objects, "s3://w/jobs/none"), force=True, now=NOW)


def submitter(scripted: Scripted, service: str, name: str | None = None, **staged: str) -> RequestedJobSubmitter:
    """Return the submitter of a request."""
    requested = msgspec.structs.replace(adapter_of(service).requested_input({}), staged=staged)
    job = RequestedJob("k", name, requested, is_content_known=True)
    client: Any = None
    model = Model("m", {})
    ml = MLCommons(scripted.cluster)
    return RequestedJobSubmitter(ml, adapter_of(service), client, model, {"a": "b"}, job=job, dlq={"bucket": "d"})


def record_of(service: str, **changes: Any) -> JobRecord:
    """Return the intent to submit a job."""
    record = JobRecord("k", "mine", service, "m", "", "", NOW)
    return msgspec.structs.replace(record, **changes)


@pytest.mark.parametrize(
    ("name", "created_at", "remote_job", "may_be"),
    [
        (None, NOW, {}, True),
        (None, NOW - 299, {}, True),
        (None, NOW - 301, {}, False),
        ("mine", NOW - 4, {}, True),
        ("mine", NOW - 6, {}, False),
        (None, NOW, {"TransformJobStatus": "Failed"}, False),
        (None, NOW, {"TransformJobStatus": "Stopped"}, False),
        (None, NOW, {"TransformJobStatus": "Completed"}, True),
        (None, None, {}, False),
        (None, None, {"CreationTime": NOW}, True),
        (None, None, {"CreationTime": NOW - 301}, False),
    ],
)
def test_a_job_that_is_older_than_the_intent_is_somebody_elses(
    scripted: Scripted, name: str | None, created_at: float | None, remote_job: dict[str, Any], may_be: Any
) -> None:
    """Or one that did not succeed, for which no request would be sent again."""
    created_at_ms = None if created_at is None else created_at * 1000
    found = submitter(scripted, "sagemaker", name).may_be_orphan(record_of("sagemaker"), remote_job, created_at_ms)
    assert found is may_be


def test_an_orphan_is_found_among_the_tasks_and_then_at_the_service(scripted: Scripted) -> None:
    """Older tasks over the same file are passed over."""
    tasks = [
        {"_id": "t-2", "_source": task_over("file-1", NOW + 1), "sort": [1]},
        {"_id": "t-1", "_source": task_over("file-1", NOW - 400), "sort": [0]},
    ]
    record = record_of("openai", staged={"input_file_id": "file-1"})

    class AtTheService:
        job: dict[str, Any] | None = None

        def find(self, _: JobRecord) -> dict[str, Any] | None:
            return self.job

    service: Any = AtTheService()
    found = msgspec.structs.replace(submitter(scripted, "openai", input_file_id="file-1"), client=service)
    scripted.answers = [(200, {"hits": {"hits": tasks}})]
    assert present(found.find(record)).ml_task_id == "t-2"
    scripted.answer = lambda _: (200, {"hits": {"hits": []}})
    assert found.find(record) is None
    service.job = {"input_file_id": "file-1", "created_at": int(NOW), "status": "validating"}
    assert found.find(record) == Accepted(None, service.job)
    service.job["created_at"] = int(NOW) - 301
    assert found.find(record) is None


def task_over(file_id: str, created_at: float) -> dict[str, Any]:
    """Make a task of a batch over a file."""
    return {"create_time": created_at * 1000, "remote_job": {"input_file_id": file_id, "status": "in_progress"}}


@pytest.mark.parametrize(("service", "named"), [("sagemaker", {"TransformJobName": "mine"}), ("openai", {})])
def test_the_request_is_sent_with_the_name_of_its_record(
    scripted: Scripted, service: str, named: dict[str, str]
) -> None:
    """And with where ML Commons reports failures; the files of a user are neither uploaded nor deleted."""
    scripted.answer = lambda _: (200, {"task_id": "t", "remote_job": {"id": "j"}})
    through = submitter(scripted, service, input_file_id="file-1")
    assert through.submit(record_of(service)) == Accepted("t", {"id": "j"})
    assert json.loads(scripted.bodies[-1]) == {"parameters": {"a": "b", **named}, "dlq": {"bucket": "d"}}
    assert through.stage(record_of(service)) == {"input_file_id": "file-1"}
    through.unstage(record_of(service))
    assert len(scripted.bodies) == 1


@pytest.mark.parametrize(
    ("name", "code", "error", "reason"),
    [
        ("mine", "ResourceInUse", ConfigError, "give another parameters.TransformJobName"),
        (None, "ResourceInUse", AlreadySubmitted, "ResourceInUse"),
        ("mine", "ThrottlingException", Throttled, "ThrottlingException"),
    ],
)
def test_a_name_that_is_taken_is_a_mistake_of_who_chose_it(
    scripted: Scripted, name: str | None, code: str, error: type[Exception], reason: str
) -> None:
    """One that this package made belongs to its own job."""
    refused = {"type": "status_exception", "reason": f'Error from remote service: {{"__type": "{code}"}}'}
    scripted.answer = lambda _: (400, {"error": refused, "status": 400})
    with pytest.raises(error, match=reason):
        submitter(scripted, "sagemaker", name).submit(record_of("sagemaker"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1725491753, 1725491753.0),
        (1.5, 1.5),
        ("2024-09-04T23:15:53Z", 1725491753.0),
        ("2024-09-04T23:15:53+00:00", 1725491753.0),
        ("soon", None),
        (None, None),
    ],
)
def test_times_of_services_are_read(value: object, expected: float | None) -> None:
    """As numbers or as text."""
    assert epoch_s(value) == expected
