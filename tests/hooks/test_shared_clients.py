"""Clients that all triggers of a process share, and the outputs of jobs that did not succeed."""

from __future__ import annotations

import threading
import time

import pytest

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.types.job import End, JobRecord, State
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.hooks.shared_clients import KEEP_S, SharedClients, shared_client


class DocumentStream:
    """Counts the clients it makes, with a clock that the test sets."""

    def __init__(self) -> None:
        self.now, self.count = 0.0, 0
        self.clients = SharedClients(clock=lambda: self.now)

    def make(self) -> int:
        """Make a client, which takes a moment."""
        time.sleep(0.02)
        self.count += 1
        return self.count


def test_many_threads_make_one_client() -> None:
    """One thread makes the client while the others wait for it."""
    made, found = DocumentStream(), list[int]()
    threads = [
        threading.Thread(target=lambda: found.append(made.clients.get("aws_default", made.make))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, made.count) == ([1] * 8, 1)


def test_a_client_is_made_anew_after_a_while() -> None:
    """A client is made again after a while, so that rotated credentials are used."""
    made = DocumentStream()
    found = []
    for now in (0.0, KEEP_S - 1, KEEP_S, KEEP_S + 1):
        made.now = now
        found.append(made.clients.get("aws_default", made.make))
    assert found == [1, 1, 2, 2]


def test_each_connection_has_a_client_of_its_own() -> None:
    """Each key has its own client."""
    made = DocumentStream()
    assert [made.clients.get(key, made.make) for key in ("a", "b", "a")] == [1, 2, 1]


def test_an_error_is_not_cached() -> None:
    """An error is not cached."""
    made = DocumentStream()

    def refuse() -> int:
        raise ConfigError("no such connection")

    with pytest.raises(ConfigError, match="no such connection"):
        made.clients.get("a", refuse)
    assert made.clients.get("a", made.make) == 1


def test_a_connection_that_cannot_be_resolved_now_is_retriable() -> None:
    """A connection that Airflow cannot resolve now is retriable; a wrong connection is not."""

    def broken() -> int:
        raise OSError("database is locked")

    with pytest.raises(RetriableError, match=r"connection c: could not create a client for aws .*database is locked"):
        shared_client("aws", "c", broken)

    def wrong() -> int:
        raise ConfigError("no Airflow connection 'c'")

    with pytest.raises(ConfigError, match=r"^no Airflow connection 'c'$"):
        shared_client("aws", "c", wrong)


@pytest.mark.parametrize("state", ["FAILED", "EXPIRED", "CANCELLED"])
def test_an_openai_batch_that_ended_badly_names_what_it_wrote(state: State) -> None:
    """The outputs of a paid job are named although it did not succeed."""
    remote_job = {"status": state.lower(), "output_file_id": "file-1", "error_file_id": "file-2"}
    record = JobRecord("k", "n", "openai", "m", "s3://b/in", "s3://b/out", 0.0, ml_task_id="t", remote_job=remote_job)
    job = JobHandle("s3://b/k", "openai", "o", "a", None)
    assert job.result(record, End(state, 1.0)).outputs == ["openai://file-1", "openai://file-2"]
