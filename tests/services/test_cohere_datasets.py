"""Datasets at Cohere through its own client: rows as JSON Lines, and errors with cause, place and remedy."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import cohere
import pytest

from include.local_stack.ai_services.model import MiniLM
from opensearch_batch.core.errors import BatchError, ConfigError, OutputUnusable, RetriableError, Throttled
from opensearch_batch.core.storage.objects import find_objects
from opensearch_batch.services.cohere.datasets import CohereDatasets
from tests.local_stack.ai_services.conftest import ai_model, ai_model_dir, ai_running, ai_stand
from tests.local_stack.ai_services.stand import SECRET_KEY, Stand
from tests.stored import present
from tests.waiting import eventually

__all__ = ["ai_model", "ai_model_dir", "ai_running", "ai_stand"]
KEY = "sk-wrong-key"
ATTEMPTS: list[Callable[[CohereDatasets], object]] = [
    lambda datasets: find_objects(datasets, "cohere://d"),
    lambda datasets: datasets.open("cohere://d"),
    lambda datasets: datasets.read("cohere://d"),
]


@pytest.fixture
def client(ai_stand: Stand) -> Iterator[cohere.Client]:
    """The service's own client, which asks once."""
    with cohere.Client(api_key=SECRET_KEY, base_url=ai_stand.app_url, max_retries=0) as made:
        yield made


@pytest.fixture
def datasets(client: cohere.Client) -> CohereDatasets:
    """The store."""
    return CohereDatasets(client)


def uploaded(client: cohere.Client, rows: int) -> str:
    """A dataset of so many texts."""
    lines = "".join(json.dumps({"text": f"text {n}", "record_id": f"r{n}"}) + "\n" for n in range(rows))
    made = client.datasets.create(
        name="d", type="embed-input", data=("d.jsonl", lines.encode()), keep_fields=["record_id"]
    )
    return str(made.id)


def embedded(client: cohere.Client, rows: int, **more: Any) -> str:
    """The output of an embed job over so many texts."""
    source = uploaded(client, rows)
    given: Any = {"model": "embed-english-v3.0", "dataset_id": source, "input_type": "search_document", **more}
    job = client.embed_jobs.create(**given)
    eventually(lambda: client.embed_jobs.get(job.job_id).status == "complete", "the embed job")
    return f"cohere://{client.embed_jobs.get(job.job_id).output_dataset_id}"


def test_the_answers_of_a_job_are_rows_of_json(
    client: cohere.Client, datasets: CohereDatasets, ai_model: MiniLM
) -> None:
    """With the id that was kept, and the service's numbers in as many digits as they need."""
    uri = embedded(client, 3, embedding_types=["float", "int8"])
    (found,) = find_objects(datasets, uri)
    assert (found.uri, found.etag, found.size_bytes > 0) == (uri, uri.removeprefix("cohere://"), True)
    with datasets.open(uri, etag=found.etag) as stream:
        lines = stream.read().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["record_id"], row["text"]) for row in rows] == [(f"r{n}", f"text {n}") for n in range(3)]
    for n, row in enumerate(rows):
        vector, (expected,) = row["embeddings"]["float"], ai_model.encode([f"text {n}"])
        assert struct.pack("384f", *vector) == expected.astype("f4").tobytes()
        assert max(len(str(number).lstrip("-0.").replace(".", "").partition("e")[0]) for number in vector) <= 9
        assert all(isinstance(number, int) for number in row["embeddings"]["int8"])
        assert row["embeddings"]["binary"] is None
    assert present(datasets.read(uri)).content.splitlines() == lines


def test_several_parts_are_one_stream(client: cohere.Client, datasets: CohereDatasets) -> None:
    """In the order of the rows, read in pieces of any size."""
    with datasets.open(uploaded(client, 2001)) as stream:
        pieces = b"".join(iter(lambda: stream.read(1000), b""))
    assert [json.loads(line)["record_id"] for line in pieces.splitlines()] == [f"r{n}" for n in range(2001)]


def test_a_missing_dataset_is_named(datasets: CohereDatasets) -> None:
    """By its id."""
    assert datasets.head("cohere://d") is None
    assert datasets.read("cohere://d") is None
    assert list(datasets.list("cohere://d")) == []
    assert list(datasets.list("cohere://")) == []
    with pytest.raises(ConfigError, match="cohere://d: Cohere has no such dataset; correct the id, or give the key of"):
        datasets.open("cohere://d")


def test_a_dataset_that_is_not_ready_is_no_empty_one(
    ai_stand: Stand, client: cohere.Client, datasets: CohereDatasets
) -> None:
    """Where Cohere validates it, later; where it failed, never."""
    for fault, error, said in (
        ("delay", RetriableError, r"the dataset has no parts yet \(processing\); run again later"),
        ("fail", OutputUnusable, "Cohere reports the dataset as failed"),
    ):
        ai_stand.fault(fault, service="cohere", operation="CreateDataset", seconds=3600)
        uri = f"cohere://{uploaded(client, 1)}"
        with pytest.raises(error, match=f"{uri}: .*{said}"):
            datasets.open(uri)


def test_a_transfer_that_breaks_off_can_be_tried_again(
    ai_stand: Stand, client: cohere.Client, datasets: CohereDatasets
) -> None:
    """It is no damage of the file, and the next attempt reads it whole."""
    uri = uploaded(client, 1000)
    ai_stand.fault("truncate", service="cohere", operation="DownloadDatasetPart")
    with datasets.open(uri) as stream, pytest.raises(RetriableError, match=r"cannot be read \(\w+\); run again"):
        stream.read()
    with datasets.open(uri) as stream:
        assert len(stream.read().splitlines()) == 1000


def test_a_damaged_file_is_an_output_nobody_can_use(
    ai_stand: Stand, client: cohere.Client, datasets: CohereDatasets
) -> None:
    """The rows before the damage are not taken for all."""
    ai_stand.fault("truncate", service="cohere", operation="CreateEmbedJob")
    uri = embedded(client, 2)
    with datasets.open(uri) as stream, pytest.raises(OutputUnusable, match=rf"{uri}: .* damaged or truncated \(\w+\)"):
        stream.read()


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize(
    ("fault", "told"),
    [("throttle", (Throttled, "Cohere answered 429")), ("error", (RetriableError, "Cohere answered 500; run again"))],
)
def test_not_now_can_be_tried_again(
    ai_stand: Stand,
    datasets: CohereDatasets,
    attempt: Callable[[CohereDatasets], object],
    fault: str,
    told: tuple[type[BatchError], str],
) -> None:
    """The error says where."""
    ai_stand.fault(fault, service="cohere", operation="GetDataset")
    with pytest.raises(told[0], match=f"cohere://d: {told[1]}"):
        attempt(datasets)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_refused_key_stays_unsaid(ai_stand: Stand, attempt: Callable[[CohereDatasets], object]) -> None:
    """The error says what to correct."""
    with (
        cohere.Client(api_key=KEY, base_url=ai_stand.app_url, max_retries=0) as client,
        pytest.raises(
            ConfigError, match=r"cohere://d: Cohere refuses the key \(401\); correct the connection"
        ) as raised,
    ):
        attempt(CohereDatasets(client))
    assert KEY not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_service_that_is_away_can_be_tried_again(attempt: Callable[[CohereDatasets], object]) -> None:
    """No server on the port."""
    with (
        cohere.Client(api_key=KEY, base_url="http://127.0.0.1:9", max_retries=0) as client,
        pytest.raises(RetriableError, match=r"cohere://d: Cohere does not answer \(ConnectError\); run again later"),
    ):
        attempt(CohereDatasets(client))
