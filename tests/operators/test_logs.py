"""What a person reads in a task's log: an error as one line, counts as a short table, and a running job's progress."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from structlog.testing import capture_logs
from structlog.tracebacks import ExceptionDictTransformer

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, RetriableError
from opensearch_batch.core.jobs import status_poller
from opensearch_batch.core.jobs.job_records import PolledStatus
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter, list_parts, read_letters
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.operators.base import translate_errors
from opensearch_batch.operators.log_tables import dead_letters_url, log_counts
from opensearch_batch.triggers.ml_task import MLTaskTrigger
from tests.core.aws import aws
from tests.core.memory_objects import MemoryObjects

REMEDY = "s3://b/in/: no objects; correct source.uri"


def fail_with(error: BatchError) -> None:
    """Raise an error as the rooms of core/ do: with the errors of libraries as its causes."""
    try:
        try:
            dict[str, str]()["missing"]
        except KeyError as cause:
            raise ConnectionError("a library's own text") from cause
    except ConnectionError as cause:
        raise error from cause


@pytest.mark.parametrize("error", [ConfigError(REMEDY), FatalError(REMEDY), RetriableError(REMEDY)])
def test_an_error_is_the_first_and_the_last_line(error: BatchError, caplog: pytest.LogCaptureFixture) -> None:
    """Airflow shows one traceback, whose last line is the message; the causes are logged for debugging only."""
    with caplog.at_level(logging.INFO), pytest.raises(Exception, match=REMEDY) as raised, translate_errors():
        fail_with(error)
    assert [(line.levelname, line.getMessage(), line.exc_info) for line in caplog.records] == [("ERROR", REMEDY, None)]
    # As Airflow renders the traceback for its UI.
    (shown,) = ExceptionDictTransformer(show_locals=False, use_rich=False)(raised._excinfo)  # type: ignore[arg-type] # noqa: SLF001 - the triple
    assert shown["exc_value"] == REMEDY
    assert not any("core" in frame["filename"] or frame["name"] == "fail_with" for frame in shown["frames"])
    assert isinstance(raised.value, type(error) if isinstance(error, RetriableError) else AirflowFailException)


def test_an_error_of_no_one_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error is a defect of this package, and its traceback is needed."""
    with pytest.raises(KeyError, match="missing") as raised, translate_errors():
        dict[str, str]()["missing"]
    assert (raised.value.__cause__, caplog.records) == (None, [])


def test_counts_are_a_short_table(caplog: pytest.LogCaptureFixture) -> None:
    """The table has the usual counts, the others if they are not 0, and the three most common reasons."""
    objects, prefix = MemoryObjects(), "s3://b/dead/"
    reasons = ["line 1: not JSON", "line 22: not JSON", "no text", "no text", "no text", "no id", "'a' is too long"]
    with DeadLetters(objects, prefix) as letters:
        for reason in reasons:
            letters.add(dead_letter(b"x", stage="ingest", reason=reason, source="s3://b/in", line=1))
        letters.write()
    counts = IngestCounts(read=1234, indexed=1227, dead_letters=len(reasons), superseded=0, joined=2)
    with caplog.at_level(logging.INFO):
        log_counts(logging.getLogger("test"), "shard 00000 into books", counts, objects, prefix)  # type: ignore[arg-type] # it has the methods that are called
    assert [" ".join(line.getMessage().split()) for line in caplog.records] == [
        "shard 00000 into books",
        "read 1,234",
        "indexed 1,227",
        "joined 2",
        "nulls 0",
        "filtered 0",
        "dead letters 7",
        "3 no text",
        "2 line 1: not JSON",
        "1 no id",
        f"dead letters in {prefix}",
    ]


def test_poll_reports_a_running_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a job runs, its state, age and counts are logged again and again; a status that stays is saved once."""
    statuses = iter([{"status": "in_progress", "request_counts": {"completed": 2, "failed": 0, "total": 5}}] * 30)
    done = {"status": "completed", "output_file_id": "f"}
    record = JobRecord("k", "books-1", "openai", "m", "in", "out", 0.0, ml_task_id="t")
    monkeypatch.setattr(JobHandle, "record", lambda _: record)
    monkeypatch.setattr(JobHandle, "task_status", lambda *_: next(statuses, done))
    monkeypatch.setattr(JobHandle, "conclude", lambda _, __, end, **___: end)
    monkeypatch.setattr(JobHandle, "result", lambda *_: SimpleNamespace(state="COMPLETED"))
    saved: list[PolledStatus] = []
    monkeypatch.setattr(JobHandle, "save_status", lambda _, status: saved.append(status))
    monkeypatch.setattr("msgspec.to_builtins", lambda _: {})
    monkeypatch.setattr(status_poller, "POLLS_PER_S", 1000.0)
    monkeypatch.setattr(status_poller, "LOG_EVERY_S", 0.01)
    monkeypatch.setattr(status_poller, "LINES_PER_S", 1000.0)
    trigger = MLTaskTrigger(
        jobs=[{"task_id": "t", "job": "s3://b/jobs/k"}],
        service="openai",
        poll_every_s=0.01,
        poll_at_most_s=0.01,
        deadline_s=None,
        opensearch_conn_id="c",
        aws_conn_id="a",
    )

    async def wait() -> list[Any]:
        return [event async for event in trigger.run()]

    with capture_logs() as entries:
        asyncio.run(wait())
    lines = [str(entry["event"]) for entry in entries]
    progress = [line for line in lines if "RUNNING (in_progress)" in line]
    assert progress
    assert progress[-1].startswith("job books-1 (ML Commons task t): RUNNING (in_progress), submitted ")
    assert progress[-1].endswith("; 2 completed, 0 failed, 5 total")
    assert saved.count(PolledStatus(1, "in_progress", {"completed": 2, "failed": 0, "total": 5})) == 1


def test_the_link_to_dead_letters_opens_a_text() -> None:
    """The parts are JSON Lines, which browsers download; the summary beside them is shown."""
    prefix = "s3://books/dead/"
    with aws("s3") as client:
        client.create_bucket(Bucket="books")
        store = S3Objects(client)
        with DeadLetters(store, prefix) as letters:
            letters.add(dead_letter(b'{"a": 1}', stage="ingest", reason="no text", source="s3://b/in", line=7))
            letters.write()
        url = dead_letters_url(store, prefix)
        assert url.endswith("/books/dead/summary.txt")
        found = client.get_object(Bucket="books", Key="dead/summary.txt")
        assert found["ContentType"] == "text/plain; charset=utf-8"
        text = found["Body"].read().decode()
        assert all(part in text for part in ("1 x no text", "s3://b/in line 7", '{"a": 1}'))
        assert [letter.line for part in list_parts(store, prefix) for letter in read_letters(store, part)] == [7]
