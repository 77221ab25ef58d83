"""What holds for every AI service, ours and a fifth one: the contract, row by row of one table."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError, RecordRejected, RemoteError, RetriableError, Throttled
from opensearch_batch.core.jobs.contract import explain, job_keys
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.services.entry import AiService, KeyConnection
from opensearch_batch.services.registry import BUILT_IN, service_of
from tests import fifth_service

SERVICES = [*(service_of(name) for name in BUILT_IN), fifth_service.SERVICE]
INPUTS = ["$.text"]
RECORD = b'{"text":"a \\"cat\\"","n":1.10}'
ID = "r0000000007"


@pytest.fixture(params=SERVICES, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> AiService:
    """A service."""
    found: AiService = request.param
    return found


def record(entry: AiService, **more: Any) -> JobRecord:
    """A job's record."""
    base = JobRecord("k", "p-k-1", entry.name, "m", "s3://w/jobs/k/input.jsonl", "s3://w/jobs/k/output/1/", 0.0)
    return msgspec.structs.replace(base, **more)


def answer(entry: AiService) -> bytes:
    """A row that answers the record, made of what the adapter says of its rows."""
    adapter, parameters = entry.adapter, entry.adapter.example_parameters
    row: dict[str, Any] = msgspec.json.decode(RECORD) if adapter.row_matching(parameters) == "beside_record" else {}
    *names, last = adapter.prediction_path(parameters, INPUTS).removeprefix("$.").split(".")
    inner = row
    for name in names:
        inner = inner.setdefault(name, {})
    if last.endswith("]"):
        name, _, number = last[:-1].partition("[")
        inner[name] = [None] * int(number) + [[1.0]]
    else:
        inner[last] = [1.0]
    return msgspec.json.encode(row | ({adapter.id_member: ID} if adapter.id_member else {}))


def test_its_example_makes_a_job(entry: AiService) -> None:
    """A pipeline whose model only the cluster knows is checked with it."""
    adapter = entry.adapter
    adapter.check(adapter.example_parameters, INPUTS)
    assert adapter.model(adapter.example_parameters)
    limits = adapter.limits.of_shard(10_000, 100_000_000, inputs=1)
    assert 0 < limits.min_records <= limits.max_records <= adapter.limits.max_records
    assert 0 < limits.max_record_bytes <= limits.max_bytes <= adapter.limits.max_bytes


def test_a_line_has_the_text_as_it_is(entry: AiService) -> None:
    """The form of what the model reads gives the same content as the reader of one record."""
    adapter, parameters = entry.adapter, entry.adapter.example_parameters
    line, form = adapter.request_line(parameters, INPUTS), adapter.content_form(parameters, INPUTS)
    made = line(RECORD, ID)
    assert b'"a \\"cat\\""' in made
    assert b"\n" not in made
    read = adapter.content_reader(parameters, INPUTS)
    assert adapter.line_bytes(parameters, INPUTS)(RECORD, read(RECORD)) == len(made)
    if form is not None:
        assert b"".join((form.before, b'"a \\"cat\\""', form.after)) == read(RECORD)
    if adapter.id_member:
        assert msgspec.json.decode(made)[adapter.id_member] == ID
    for row in (b'{"n":1}', b'{"text":null}'):
        with pytest.raises(RecordRejected, match=r"nothing at \$\.text"):
            line(row, ID)


def test_an_answer_is_read_by_its_own_description(entry: AiService) -> None:
    """Members, path and id are those of a row that is no error."""
    adapter, row = entry.adapter, answer(entry)
    found = adapter.row(row)
    assert (found.record_id, found.error) == (ID if adapter.id_member else None, None)
    assert adapter.output_members & msgspec.json.decode(row).keys()
    assert entry.row_errors is None or entry.row_errors.find(row) is None


@pytest.mark.parametrize("row", [b'{"a', b"\xff", b""])
def test_a_row_that_is_none_is_an_error(entry: AiService, row: bytes) -> None:
    """It names no record, and does not end the ingest."""
    found = entry.adapter.row(row)
    assert found.record_id is None
    assert found.error
    assert entry.row_errors is None or entry.row_errors.find(row) is None


def test_a_prediction_nobody_makes_is_refused(entry: AiService) -> None:
    """The error says how many there are."""
    adapter, parameters = entry.adapter, entry.adapter.example_parameters
    with pytest.raises(ConfigError, match=r"prediction\[1\]: a record has 1 input; the last is prediction\[0\]"):
        adapter.prediction_path(parameters, INPUTS, 1)
    with pytest.raises(ConfigError, match="a record has 2 inputs; add the number"):
        adapter.prediction_path(parameters, [*INPUTS, "$.title"], None)


def test_a_job_has_a_name_of_its_own(entry: AiService) -> None:
    """The same for the same submission, another for each other one."""
    name = entry.adapter.job_name
    assert name("p", "s3://w/jobs/k", 1) == name("p", "s3://w/jobs/k", 1)
    assert len({name("p", folder, at) for folder in ("s3://w/jobs/k", "s3://w/jobs/j") for at in (1, 2)}) == 4


def test_a_job_key_is_of_model_and_content(entry: AiService) -> None:
    """Other parameters, records or inputs are another job."""
    adapter, parameters = entry.adapter, entry.adapter.example_parameters
    keys = [job_keys(adapter, parameters, INPUTS), job_keys(adapter, parameters, ["$.title"])]
    assert len({key(content) for key in keys for content in ("a", "b")}) == 4


def test_a_job_of_which_nothing_is_known_runs_on_and_is_nobodys(entry: AiService) -> None:
    """ML Commons keeps a task before it knows anything of its job."""
    adapter = entry.adapter
    other = {"status": "incomplete", "state": "incomplete", "TransformJobStatus": "incomplete"}
    for remote_job, state in (({}, "RUNNING"), (other, "UNKNOWN")):
        assert adapter.job_status(remote_job).state == state
        assert not adapter.is_job(record(entry), remote_job)
        assert isinstance(adapter.outputs(record(entry), remote_job), list)


def test_a_refusal_means_what_the_service_means(entry: AiService) -> None:
    """The service throttles, fails, or refuses."""
    adapter = entry.adapter
    for code in adapter.errors.throttle:
        assert type(explain(adapter, RemoteError("x", status=400, code=code))) is Throttled
    assert type(explain(adapter, RemoteError("x", status=429, code=""))) is Throttled
    assert type(explain(adapter, RemoteError("x", status=503, code=""))) is RetriableError
    assert type(explain(adapter, RemoteError("x", status=400, code="other"))) is ConfigError


def test_what_was_not_uploaded_is_not_removed(entry: AiService) -> None:
    """Nothing is called."""
    no_api: Any = None
    entry.client(no_api, no_api).unstage({})


def test_files_at_the_service_are_only_read(entry: AiService) -> None:
    """Every way of writing says where to write instead."""
    if entry.storage is None:
        return
    store, uri = entry.storage.open(None), f"{entry.storage.scheme}://f"
    writes: list[Any] = [store.write, store.create, store.replace, store.upload]
    for write in writes:
        with pytest.raises(ConfigError, match=f"{uri}: .* are read-only; give an S3 URI"):
            write(uri, b"")


def test_a_key_is_asked_for_by_a_connection(entry: AiService) -> None:
    """Its connection has a default, and the connector's credential a member for it."""
    found = entry.connection
    assert not isinstance(found, KeyConnection) or (found.conn_id and found.credential_member)
