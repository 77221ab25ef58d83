"""A conditional write is won by exactly one writer, whatever answers are lost; a store without them is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.conditional_writes import require_conditional_writes
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from tests.core.jobs.test_submission import Service, attempt
from tests.faults.proxy import Proxy, answers, first, ignores, resets, resets_after
from tests.stored import content, present


@pytest.fixture
def proxy(s3_client: Any) -> Iterator[Proxy]:
    """A proxy in front of the S3 server."""
    server = Proxy(s3_client.meta.endpoint_url)
    yield server
    server.close()


@pytest.fixture
def behind(proxy: Proxy) -> Iterator[S3Objects]:
    """The store behind the proxy, with boto3's own retries."""
    client: Any = boto3.client(
        "s3",
        endpoint_url=proxy.url,
        region_name="us-east-1",
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
    )
    yield S3Objects(client)
    client.close()


def test_a_create_whose_answer_was_lost_is_won(behind: S3Objects, proxy: Proxy, bucket: str) -> None:
    """The retry meets the object that the first attempt wrote."""
    uri = f"s3://{bucket}/job.json"
    proxy.on("PUT .*/job.json", 1, resets_after)
    assert behind.create(uri, b"1")
    assert not behind.create(uri, b"1")


def test_a_replacement_whose_answer_was_lost_is_won(
    behind: S3Objects, store: S3Objects, proxy: Proxy, bucket: str
) -> None:
    """The same for a compare-and-swap."""
    uri = f"s3://{bucket}/job.json"
    store.write(uri, b"1")
    etag = present(store.read(uri)).etag
    proxy.on("PUT .*/job.json", 1, resets_after)
    assert behind.replace(uri, b"2", etag=etag)
    assert not behind.replace(uri, b"2", etag=etag)


def test_the_same_content_of_another_writer_is_not_ones_own(
    behind: S3Objects, store: S3Objects, proxy: Proxy, bucket: str
) -> None:
    """Two writers of equal content: one wins, although the other one's request was lost and sent again."""
    uri = f"s3://{bucket}/job.json"
    proxy.on("PUT .*/job.json", 1, first(lambda: store.create(uri, b"1"), resets))
    assert not behind.create(uri, b"1")


def test_a_lost_answer_of_one_that_was_overwritten_is_lost(
    behind: S3Objects, store: S3Objects, proxy: Proxy, bucket: str
) -> None:
    """The write took effect, and another writer replaced it: what is stored is not ours."""
    uri = f"s3://{bucket}/job.json"

    def overwritten(exchange: Any) -> None:
        exchange.forward()
        store.write(uri, b"theirs")
        exchange.reset()

    proxy.on("PUT .*/job.json", 1, overwritten)
    assert not behind.create(uri, b"ours")
    assert content(store, uri) == b"theirs"


def test_an_intent_whose_answer_was_lost_keeps_its_upload(behind: S3Objects, proxy: Proxy, bucket: str) -> None:
    """The attempt goes on with what it staged, submits once, and waits for nobody."""
    proxy.on("PUT .*/job.json", 1, resets_after)
    service = Service()
    decision, record = attempt(JobRecords(behind, f"s3://{bucket}/jobs/k"), service)
    assert (decision, record.staged, service.files) == ("submit", {"file": "job-1-1"}, {"job-1-1"})
    assert service.accepted == ["job-1"]


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_conditions_is_refused(
    behind: S3Objects, store: S3Objects, proxy: Proxy, bucket: str, header: str
) -> None:
    """The error names the remedy, and nothing says that the store passed."""
    proxy.on("PUT ", 1, ignores(header), times=100)
    uri = Layout(f"s3://{bucket}/work", "p").conditional_writes()
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"{uri}: the store ignores {header}, .*pay for.* Set work_prefix to a"):
            require_conditional_writes(behind, uri)
    assert store.head(uri) is None


def test_a_store_is_tested_once_for_a_work_prefix(behind: S3Objects, proxy: Proxy, bucket: str) -> None:
    """Later runs, of any pipeline, send one request."""
    for pipeline in ("one", "two"):
        before = proxy.count(".*")
        require_conditional_writes(behind, Layout(f"s3://{bucket}/work", pipeline).conditional_writes())
    assert proxy.count(".*") - before == 1


def test_a_store_that_refuses_conditions_is_named(behind: S3Objects, proxy: Proxy, bucket: str) -> None:
    """A store that answers "not implemented" is not one that is away."""
    proxy.on("PUT ", 1, answers(501, b"<Error><Code>NotImplemented</Code></Error>"), times=100)
    with pytest.raises(ConfigError, match=r"does not implement .* conditional writes"):
        behind.create(f"s3://{bucket}/job.json", b"1")
